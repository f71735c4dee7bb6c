"""Pages for people, beside the HTTP API. They are files that hold no data: whatever a page shows it asks the API for, with a key that is typed in."""

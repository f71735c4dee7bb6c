"""What logs on other machines have in common, whose messages are frames: the writing side and what a reader has fetched. Knows no backend."""

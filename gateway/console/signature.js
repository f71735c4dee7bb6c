// Asks POST /api/v1/signature what is wrong with a login. What comes back is shown as text, never as markup.
"use strict";

const form = document.getElementById("login");
const result = document.getElementById("result");
const button = form.querySelector("button");

document.getElementById("clear").hidden = window.isSecureContext;

function show(kind, words) {
  result.dataset.kind = kind;
  result.textContent = words;
}

async function check() {
  const answer = await fetch("api/v1/signature", {
    method: "POST",
    headers: {
      "Authorization": "Bearer " + document.getElementById("bearerKey").value.trim(),
      "Content-Type": "application/json",
    },
    body: JSON.stringify(Object.fromEntries(new FormData(form))), // the bearer key has no name, and is no part of it
    credentials: "omit",
    cache: "no-store",
  });
  const body = await answer.json();
  if (!answer.ok) {
    show("failed", body.error.field ? body.error.field + ": " + body.error.message : body.error.message);
  } else if (body.right) {
    show("right", "The login is right.");
  } else {
    show("wrong", body.problem);
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  show("", "");
  try {
    await check();
  } catch {
    show("failed", "The gateway does not answer.");
  } finally {
    button.disabled = false;
  }
});

// What the pages do beyond HTML. Nothing depends on it but copying to the clipboard.
"use strict";

const said = document.getElementById("said");

function say(text) {
  if (said) said.textContent = text;
}

// Times come in UTC; they are shown in the reader's zone, and stay in UTC in the title.
const FORMS = {
  date: { day: "numeric", month: "short", year: "numeric" },
  minute: { day: "numeric", month: "long", year: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short" },
  second: { day: "numeric", month: "long", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" },
};

function localise(within) {
  for (const time of within.querySelectorAll("time[data-form]")) {
    const form = new Intl.DateTimeFormat("en-GB", FORMS[time.dataset.form]);
    time.textContent = form.format(new Date(time.dateTime)).replace(" at ", ", ");
  }
}

function offerToCopy(within) {
  if (!navigator.clipboard) return;
  for (const button of within.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.dataset.copy);
      say("Copied to the clipboard");
      button.classList.add("copied");
      const text = button.firstChild;
      if (text.nodeType === Node.TEXT_NODE) text.textContent = "Copied";
    });
  }
}

function selectOnFocus(within) {
  for (const input of within.querySelectorAll("[data-select]")) {
    input.addEventListener("focus", () => input.select());
  }
}

// A field for a time is filled in in the reader's zone, and sent in UTC.
function readInLocalTime(within) {
  const local = (at) => new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
  for (const input of within.querySelectorAll("input[data-utc]")) {
    for (const name of ["value", "max"]) {
      if (input[name]) input[name] = local(new Date(`${input[name]}Z`));
    }
    const zone = within.querySelector(`label[for="${input.id}"] .zone`);
    if (zone) zone.textContent = "(your time)";
    input.form.addEventListener("formdata", (event) => {
      if (input.value) event.formData.set(input.name, `${new Date(input.value).toISOString().slice(0, 16)}Z`);
    });
  }
}

// An open menu closes when something else is clicked, or with Escape.
function closeMenus() {
  const close = (keeping) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (menu === keeping) continue;
      if (menu.contains(document.activeElement)) menu.firstElementChild.focus();
      menu.open = false;
    }
  };
  document.addEventListener("click", (event) => close(event.target.closest("details.menu")));
  document.addEventListener("keydown", (event) => event.key === "Escape" && close(null));
}

// The list beside a key begins at that key.
function showCurrentRow() {
  const row = document.querySelector(".list-rows [aria-current]");
  if (row) row.closest(".list-rows").scrollTop = row.offsetTop - row.offsetHeight;
}

// While work goes on, its page is fetched again and again, and the part that changes is replaced.
async function poll() {
  const shown = document.querySelector("[data-poll]");
  if (!shown) return;
  await new Promise((resolve) => setTimeout(resolve, 500));
  try {
    const answer = await fetch(location.href, { redirect: "error", credentials: "same-origin" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById(shown.id);
    if (!answer.ok || !fresh) return location.reload();
    localise(fresh);
    offerToCopy(fresh);
    shown.replaceWith(document.adoptNode(fresh));
    if (!("poll" in fresh.dataset)) say(shown.dataset.poll);
  } catch {
    // The server may be restarting, or the session may have ended: the next time tells.
    await new Promise((resolve) => setTimeout(resolve, 2000));
    return location.reload();
  }
  poll();
}

localise(document);
offerToCopy(document);
selectOnFocus(document);
readInLocalTime(document);
closeMenus();
showCurrentRow();
poll();

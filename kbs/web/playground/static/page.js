// Comfort only: everything works without it.
"use strict";

// Control and Enter in a text run it.
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    document.querySelector("button[value=run]").click();
  }
});

// Tab indents in the policy; Escape before it leaves the field, as without this script.
const policy = document.getElementById("policy");
let leaving = false;
policy.addEventListener("keydown", (event) => {
  if (event.key === "Tab" && !event.shiftKey && !leaving) {
    event.preventDefault();
    policy.setRangeText("\t", policy.selectionStart, policy.selectionEnd, "end");
  }
  leaving = event.key === "Escape";
});

// After a run the result is what one wants to see.
const result = document.getElementById("result");
if (result) {
  result.scrollIntoView({ block: "start" });
}

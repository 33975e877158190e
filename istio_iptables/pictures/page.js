// Lights up the way of the connection that is chosen: in the picture, in the rules, and as text.
(() => {
  "use strict";
  const form = document.getElementById("choose");
  const picture = document.querySelector("svg.picture");
  const conclusion = document.getElementById("conclusion");
  const nothing = conclusion.textContent;
  const ways = [...document.querySelectorAll("article.way")];

  const words = (input, name) => (input.dataset[name] || "").split(" ").filter(Boolean);
  const light = (element) => element && element.classList.add("on");

  function clear() {
    for (const element of document.querySelectorAll(".on")) {
      element.classList.remove("on");
    }
  }

  function lightUp(input) {
    for (const id of words(input, "ids")) {
      light(document.getElementById(`picture-${id}`));
      light(document.getElementById(`rule-${id}`));
    }
    const edges = new Set(words(input, "edges"));
    for (const line of picture.querySelectorAll(".line[data-from]")) {
      if (edges.has(`${line.dataset.from}>${line.dataset.to}`)) light(line);
    }
    words(input, "order").forEach((id, at) => {
      const badge = picture.querySelector(`[data-of="${id}"]`);
      if (!badge) return;
      badge.querySelector("text").textContent = at + 1;
      light(badge);
    });
  }

  function show(input) {
    const chosen = input.value !== "";
    clear();
    picture.classList.toggle("lit", chosen);
    for (const way of ways) way.hidden = chosen && way.id !== `way-${input.value}`;
    if (chosen) lightUp(input);
    conclusion.textContent = chosen ? input.dataset.conclusion : nothing;
  }

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => show(event.target));
  // A browser that comes back to the page may have kept what was chosen.
  const kept = form.querySelector("input:checked");
  if (kept) show(kept);
})();

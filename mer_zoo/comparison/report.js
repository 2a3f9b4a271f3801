"use strict";
// Sorting, reading dialogues, the theme and saving figures; without it the report still shows every table and figure.

const theme = document.getElementById("theme");
const paint = (name) => {
  document.documentElement.dataset.theme = name;
  theme.textContent = name === "dark" ? "Light" : "Dark";
};
theme.hidden = false;
theme.onclick = () => paint(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
paint(window.matchMedia && matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
// paper is white
addEventListener("beforeprint", () => { document.documentElement.dataset.theme = "light"; });

const UNITS = { ms: 1e-3, s: 1, min: 60, h: 3600 };
const value = (cell) => {
  const found = /^([+\-\u2212]?[\d.]+)(?:\s*(ms|s|min|h)\b)?/.exec(cell.textContent.trim().replaceAll(",", ""));
  return found ? Number(found[1].replace("\u2212", "-")) * (UNITS[found[2]] || 1) : null;
};

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.onclick = () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].filter((row) => !row.classList.contains("settings"));
      const beneath = new Map(rows.map((row) => {
        const next = row.nextElementSibling;
        return [row, next && next.classList.contains("settings") ? next : null];
      }));
      rows.sort((a, b) => {
        const [x, y] = [value(a.cells[column]), value(b.cells[column])];
        if (x === null && y === null) {
          return a.cells[column].textContent.localeCompare(b.cells[column].textContent) * (down ? 1 : -1);
        }
        return x === null ? 1 : y === null ? -1 : (x - y) * (down ? -1 : 1);
      });
      for (const row of rows) table.tBodies[0].append(...[row, beneath.get(row)].filter(Boolean));
    };
  });
}

for (const reader of document.querySelectorAll(".reader")) {
  const dialogues = JSON.parse(reader.querySelector("script").textContent);
  const select = reader.querySelector("select");
  const body = reader.querySelector("tbody");
  const cell = (text, kind) => {
    const made = document.createElement("td");
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const show = () => {
    const dialogue = dialogues[select.selectedIndex];
    if (!dialogue) return;
    body.replaceChildren(...dialogue.turns.map((turn, number) => {
      const row = document.createElement("tr");
      row.append(cell(turn.speaker || String(number + 1)), cell(turn.text, "said"), cell(turn.truth || "\u2013"));
      for (const [name, share] of turn.models) {
        row.append(cell(`${name} ${share}`, turn.truth ? (name === turn.truth ? "hit" : "miss") : ""));
      }
      return row;
    }));
  };
  dialogues.forEach((one) => select.add(new Option(`${one.name} (${one.wrong} % wrong)`)));
  select.onchange = show;
  for (const button of reader.querySelectorAll("button")) {
    button.onclick = () => {
      const next = select.selectedIndex + Number(button.dataset.step);
      if (next >= 0 && next < dialogues.length) {
        select.selectedIndex = next;
        show();
      }
    };
  }
  reader.querySelector(".pick").hidden = false;
  show();
}

for (const link of document.querySelectorAll("a.svg")) {
  link.hidden = false;
  link.onclick = () => { link.href = link.closest("figure").querySelector("img").src; };
}

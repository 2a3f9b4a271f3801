"use strict";
// Sorting, reading dialogues, looking into models, the theme and saving figures; without it the report still shows every table and figure.

const theme = document.getElementById("theme");
const paint = (name) => {
  document.documentElement.dataset.theme = name;
  theme.textContent = name === "dark" ? "Light" : "Dark";
  dispatchEvent(new Event("painted"));
};
theme.hidden = false;
theme.onclick = () => paint(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
paint(window.matchMedia && matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
// paper is white
let shown;
addEventListener("beforeprint", () => {
  shown = document.documentElement.dataset.theme;
  paint("light");
});
addEventListener("afterprint", () => paint(shown));

const UNITS = { ms: 1e-3, s: 1, min: 60, h: 3600 };
const value = (cell) => {
  const found = /^([+\-\u2212]?[\d.]+(?:e[+\-]?\d+)?)(?::(\d\d))?(?:\s*(ms|s|min|h)\b)?/.exec(cell.textContent.trim().replaceAll(",", ""));
  return found ? (Number(found[1].replace("\u2212", "-")) + Number(found[2] || 0) / 60) * (UNITS[found[3]] || 1) : null;
};

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.onclick = () => {
      const names = column === 0;  // from A to Z first; a name may begin with a number
      const down = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : !names;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].filter((row) => !row.classList.contains("settings"));
      const beneath = new Map(rows.map((row) => {
        const next = row.nextElementSibling;
        return [row, next && next.classList.contains("settings") ? next : null];
      }));
      rows.sort((a, b) => {
        const turned = down ? -1 : 1;
        const [x, y] = names ? [null, null] : [value(a.cells[column]), value(b.cells[column])];
        if (x === null && y === null) {
          return a.cells[column].textContent.localeCompare(b.cells[column].textContent, "en", { numeric: true }) * turned;
        }
        return x === null ? 1 : y === null ? -1 : (x - y) * turned;
      });
      for (const row of rows) table.tBodies[0].append(...[row, beneath.get(row)].filter(Boolean));
    };
  });
}

// scores of models as they are, or as differences to those of the baseline
for (const button of document.querySelectorAll(".minus")) {
  const table = button.parentElement.nextElementSibling.querySelector("table");
  const first = Number(table.dataset.first);
  const base = first + Number(button.dataset.base);
  button.hidden = false;
  button.onclick = () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    for (const row of [...table.tBodies[0].rows, ...(table.tFoot ? table.tFoot.rows : [])]) {
      const cells = [...row.cells].slice(first);
      const score = (one) => Number.parseFloat(one.dataset.score ??= one.textContent);
      const level = score(row.cells[base]);
      for (const one of cells) one.whole ??= one.textContent;
      for (const one of cells) {
        const points = score(one) - level;
        const sign = points < -0.05 ? "\u2212" : "+";
        const away = on && one !== row.cells[base] && !Number.isNaN(points);
        one.textContent = away ? sign + Math.abs(points).toFixed(1) : one.whole;
      }
    }
  };
}

const cell = (text, kind) => {
  const made = document.createElement("td");
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
};

for (const reader of document.querySelectorAll(".reader")) {
  const dialogues = JSON.parse(reader.querySelector("script").textContent);
  const select = reader.querySelector("select");
  const body = reader.querySelector("tbody");
  const show = () => {
    const dialogue = dialogues[select.selectedIndex];
    if (!dialogue) return;
    reader.classList.toggle("silent", !dialogue.turns.some((turn) => turn.text));
    body.replaceChildren(...dialogue.turns.map((turn, number) => {
      const row = document.createElement("tr");
      row.append(cell(turn.speaker || String(number + 1), "name"), cell(turn.text, "said"), cell(turn.truth || "\u2013"));
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

// a map of attention: rows look, columns are looked at
const TICK = 12;
const called = ([utterance, name]) => utterance < 0 ? name : `${utterance + 1} ${name}`.trim();
const drawMap = (canvas, rows, columns, values) => {
  const style = getComputedStyle(document.documentElement);
  const size = Math.max(3, Math.min(18, Math.floor(300 / Math.max(rows.length, columns.length))));
  const pen = canvas.getContext("2d");
  const font = "10px system-ui, sans-serif";
  pen.font = font;
  const room = (nodes) => Math.ceil(Math.max(...nodes.map((node) => pen.measureText(called(node)).width))) + 6;
  const [left, below] = [room(rows), room(columns)];
  const [width, height] = [columns.length * size, rows.length * size];
  const sharp = 2;
  [canvas.width, canvas.height] = [(left + width + 1) * sharp, (height + below + 1) * sharp];
  canvas.style.width = `${left + width + 1}px`;
  pen.setTransform(sharp, 0, 0, sharp, 0, 0);
  for (let row = 0; row < rows.length; row++) {
    for (let column = 0; column < columns.length; column++) {
      const value = values[row * columns.length + column];
      if (!value) continue;
      pen.fillStyle = `rgba(${style.getPropertyValue(value > 0 ? "--more" : "--less")}, ${Math.abs(value) / 127})`;
      pen.fillRect(left + column * size, row * size, size, size);
    }
  }
  pen.strokeStyle = style.getPropertyValue("--strong");
  pen.strokeRect(left, 0.5, width, height);
  pen.font = font;
  pen.fillStyle = style.getPropertyValue("--quiet");
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  const step = Math.ceil(TICK / size);
  for (let row = 0; row < rows.length; row += step) pen.fillText(called(rows[row]), left - 4, (row + 0.5) * size);
  for (let column = 0; column < columns.length; column += step) {
    pen.save();
    pen.translate(left + (column + 0.5) * size, height + 4);
    pen.rotate(-Math.PI / 2);
    pen.fillText(called(columns[column]), 0, 0);
    pen.restore();
  }
  return (event) => {
    const box = canvas.getBoundingClientRect();
    const scale = (left + width + 1) / box.width;
    const column = Math.floor(((event.clientX - box.left) * scale - left) / size);
    const row = Math.floor(((event.clientY - box.top) * scale) / size);
    return row >= 0 && row < rows.length && column >= 0 && column < columns.length ? [row, column] : null;
  };
};

for (const looker of document.querySelectorAll(".looker")) {
  const models = JSON.parse(looker.querySelector("script").textContent);
  const dialogues = JSON.parse(looker.closest("section").querySelector(".reader script").textContent);
  const [model, dialogue, attention] = looker.querySelectorAll("select");
  const [told, maps, over] = [".told", ".maps", ".over"].map((name) => looker.querySelector(name));
  const [head, body] = [looker.querySelector("thead tr"), looker.querySelector("tbody")];
  const fill = (select, names) => {
    const was = select.value;
    select.replaceChildren(...names.map((name) => new Option(name)));
    if (names.includes(was)) select.value = was;
  };
  const signed = (number, digits) => `${number < 0 ? "\u2212" : "+"}${Math.abs(number).toFixed(digits)}`;
  const amount = (map, value) => map.name === "difference"
    ? signed(value * map.most / 127, 2) : `${(100 * value * map.most / 127).toFixed(0)} %`;
  const decoded = (map) => Int8Array.from(atob(map.data), (letter) => letter.charCodeAt(0));

  const showTable = (one, group) => {
    const { turns } = dialogues[one.dialogue];
    const map = group && group.maps[group.maps.length - 1];
    const values = map && decoded(map);
    const looksAt = (turn) => group.targets.flatMap((target, row) => {
      if (target[0] !== turn) return [];
      const weights = values.subarray(row * group.sources.length, (row + 1) * group.sources.length);
      const most = weights.indexOf(Math.max(...weights));
      return weights[most] > 0 ? [`${target[1]} ${called(group.sources[most])} (${amount(map, weights[most])})`.trim()] : [];
    }).join(", ") || "\u2013";
    const heads = ["No.", "Speaker", "Says", "Truth", "Decided"];
    if (group) heads.push("Looks most at");
    heads.push(...Object.keys(one.adds).map((name) => `${name} adds`));
    head.replaceChildren(...heads.map((text) => {
      const made = document.createElement("th");
      made.scope = "col";
      made.textContent = text;
      if (text === "Says") made.className = "said";
      return made;
    }));
    looker.classList.toggle("silent", !turns.some((turn) => turn.text));
    body.replaceChildren(...turns.map((turn, number) => {
      const row = document.createElement("tr");
      const right = turn.truth && (turn.truth === one.decided[number] ? "hit" : "miss");
      row.append(cell(String(number + 1)), cell(turn.speaker, "name"), cell(turn.text, "said"), cell(turn.truth || "\u2013"));
      row.append(cell(one.decided[number], right));
      if (group) row.append(cell(looksAt(number)));
      for (const points of Object.values(one.adds)) row.append(cell(signed(points[number], 0)));
      return row;
    }));
  };
  const showMaps = (one, group) => {
    over.textContent = "";
    maps.replaceChildren(...(group ? group.maps : []).map((map) => {
      const figure = document.createElement("figure");
      const title = document.createElement("figcaption");
      title.textContent = `${map.name}, at most ${map.most.toFixed(2)}`;
      const canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${map.name} of ${group.title}; the table below says where each looks most.`);
      const values = decoded(map);
      const at = drawMap(canvas, group.targets, group.sources, values);
      canvas.onpointermove = canvas.onpointerdown = (event) => {
        const place = at(event);
        if (!place) return;
        const value = values[place[0] * group.sources.length + place[1]];
        const { turns } = dialogues[one.dialogue];
        const who = (node) => {
          const turn = node[0] < 0 ? null : turns[node[0]];
          return [called(node), turn && turn.speaker, turn && turn.text.slice(0, 60)].filter(Boolean).join(" ");
        };
        over.textContent = `${who(group.targets[place[0]])} \u2192 ${who(group.sources[place[1]])}: ${amount(map, value)}`;
      };
      figure.append(title, canvas);
      return figure;
    }));
  };
  const show = () => {
    fill(dialogue, models[model.selectedIndex].dialogues.map((each) => dialogues[each.dialogue].name));
    const one = models[model.selectedIndex].dialogues[dialogue.selectedIndex];
    if (!one) return;
    fill(attention, one.maps.map((group) => group.title));
    looker.querySelector(".attention").hidden = !one.maps.length;
    const group = one.maps[attention.selectedIndex];
    const whole = dialogues[one.dialogue].turns.length;
    told.textContent = [
      `The model of ${one.run}.`,
      one.length < whole && one.maps.length ? `Maps are of the first ${one.length} of ${whole} utterances.` : "",
      one.left_out ? `For want of room ${one.left_out} attentions are left out; ask for them with mer_zoo.attention.` : "",
      one.maps.length || one.left_out ? "" : "It has no attention between utterances that could be recorded.",
    ].join(" ").trim();
    showMaps(one, group);
    showTable(one, group);
  };
  fill(model, models.map((each) => each.name));
  model.onchange = dialogue.onchange = attention.onchange = show;
  addEventListener("painted", show);
  looker.querySelector(".pick").hidden = false;
  show();
}

document.querySelector(".exports").hidden = false;
for (const link of document.querySelectorAll(".exports a")) {
  link.onclick = () => { link.href = `data:application/octet-stream;base64,${link.dataset.base64}`; };
}
for (const link of document.querySelectorAll("a.svg")) {
  link.hidden = false;
  link.onclick = () => { link.href = link.closest("figure").querySelector("img").src; };
}

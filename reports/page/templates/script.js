"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const root = document.documentElement;

  // ---- light and dark
  const button = byId("theme");
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const sayTheme = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Switch to light colours" : "Switch to dark colours");
  };
  button.hidden = false;
  sayTheme();
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    sayTheme();
  });
  systemDark.addEventListener("change", sayTheme);

  // ---- print: everything folded away is opened, and closed again afterwards
  let opened = [];
  const openAll = () => {
    for (const details of document.querySelectorAll("details:not([open])")) {
      details.open = true;
      opened.push(details);
    }
  };
  const closeAgain = () => {
    for (const details of opened) details.open = false;
    opened = [];
  };
  addEventListener("beforeprint", openAll);
  addEventListener("afterprint", closeAgain);
  matchMedia("print").addEventListener("change", (change) => (change.matches ? openAll() : closeAgain()));

  // ---- the table of all pairs
  const pairSearch = byId("pair-search");
  if (pairSearch) {
    const rows = [...byId("pair-table").tBodies[0].rows].map((row) => ({
      row,
      name: row.cells[0].textContent.toLowerCase(),
      verdict: row.cells[1].textContent.replace(/^\W+/u, "").trim(),
    }));
    const filterPairs = () => {
      const wanted = pairSearch.value.trim().toLowerCase();
      const verdict = byId("pair-verdict").value;
      let shown = 0;
      for (const one of rows) {
        const fits = one.name.includes(wanted) && (!verdict || one.verdict === verdict);
        one.row.hidden = !fits;
        shown += fits;
      }
      byId("pair-count").textContent = `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} pairs`;
    };
    pairSearch.addEventListener("input", filterPairs);
    byId("pair-verdict").addEventListener("change", filterPairs);
    filterPairs();
  }

  // ---- the browser of samples. Texts are untrusted: they become text nodes, never markup.
  const form = byId("browser");
  if (!form) return;
  const PAGE = 10;
  const data = JSON.parse(byId("samples-data").textContent);
  const HIDDEN =
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\u{e0000}-\u{e007f}\p{Cs}]/gu;
  const controls = { arm: byId("arm"), result: byId("result"), other: byId("other"), search: byId("search") };
  const list = byId("list");
  const count = byId("count");
  const questions = data.questions.map(([id, text, gold, samples]) => ({ id, text, gold, samples }));
  let found = [];
  let page = 0;

  const escaped = (character) => {
    const number = character.codePointAt(0);
    const digits = number.toString(16);
    if (number < 0x100) return "\\x" + digits.padStart(2, "0");
    return number < 0x10000 ? "\\u" + digits.padStart(4, "0") : "\\U" + digits.padStart(8, "0");
  };
  const element = (name, className) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    return made;
  };
  const write = (parent, text) => {
    const clean = text.replaceAll("\r\n", "\n");
    let from = 0;
    for (const match of clean.matchAll(HIDDEN)) {
      parent.append(clean.slice(from, match.index));
      const mark = element("span", "hidden-character");
      mark.textContent = escaped(match[0]);
      parent.append(mark);
      from = match.index + match[0].length;
    }
    parent.append(clean.slice(from));
    return parent;
  };

  // A sample is [right, number of its stop reason, answer, text]; without a text, the answer is the text.
  const isRight = (sample) => sample[0] === 1;
  const unfinished = (sample) => ["length", "error"].includes(data.stops[sample[1]]);
  const textOf = (sample) => (sample.length > 3 ? sample[3] : (sample[2] ?? ""));
  const fits = {
    "": () => true,
    right: isRight,
    wrong: (sample) => !isRight(sample),
    unfinished,
  };
  const outcomes = (samples) => (samples ?? []).map((sample) => sample[0]).join();

  // The samples of a question that the filters leave, as [arm, sample]; null where the question is not to be shown.
  const matching = (question, arm, result, other, wanted) => {
    const arms = arm === "" ? Object.keys(question.samples) : arm in question.samples ? [arm] : [];
    const pairs = arms.flatMap((name) => question.samples[name].map((sample) => [name, sample]));
    const left = pairs.filter(([, sample]) => fits[result](sample));
    if (!left.length) return null;
    const across = [];
    if (other !== "") {
      if (!(other in question.samples)) return null;
      const differs = arms.some(
        (name) => name !== other && outcomes(question.samples[name]) !== outcomes(question.samples[other]),
      );
      if (!differs) return null;
      if (arm !== "") across.push(...question.samples[other].map((sample) => [other, sample]));
    }
    if (wanted) {
      const shown = [...left, ...across].map(([, sample]) => `${textOf(sample)}\n${sample[2] ?? ""}`);
      const texts = [question.id, question.text ?? "", question.gold ?? "", ...shown];
      if (!texts.some((text) => text.toLowerCase().includes(wanted))) return null;
    }
    return { question, left, across: arm !== other ? across : [] };
  };

  const drawAnswer = ([arm, sample]) => {
    const right = isRight(sample);
    const box = element("div", `answer ${right ? "right" : "wrong"}`);
    const head = element("p");
    const outcome = element("strong", "outcome");
    outcome.textContent = right ? "✓ right" : "✗ wrong";
    head.append(outcome, " · ");
    write(head, data.arms[Number(arm)]);
    head.append(" · answer ");
    write(head, sample[2] ?? "none");
    const stop = data.stops[sample[1]];
    if (stop) head.append(` · ${stop === "length" ? "cut at the token limit" : stop}`);
    box.append(head);
    if (sample.length > 3) {
      const text = element("pre");
      write(text, sample[3]);
      box.append(text);
    }
    return box;
  };
  const drawQuestion = ({ question, left, across }) => {
    const item = element("li");
    const asked = element("p", "question");
    write(asked, question.text ?? question.id);
    const gold = element("p", "gold");
    gold.append("gold: ");
    write(gold, question.gold ?? "not on record");
    const id = element("span", "id");
    write(id, question.id);
    gold.append(" ", id);
    const answers = element("div", "answers");
    answers.append(...[...left, ...across].map(drawAnswer));
    item.append(asked, gold, answers);
    return item;
  };

  const number = (value) => value.toLocaleString("en");
  const draw = () => {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(0, page), pages - 1);
    list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(drawQuestion));
    const completions = found.reduce((sum, one) => sum + one.left.length, 0);
    count.textContent = found.length
      ? `${number(found.length)} questions, ${number(completions)} completions; page ${number(page + 1)} of ${number(pages)}`
      : "nothing fits these filters";
    byId("first").disabled = byId("previous").disabled = page === 0;
    byId("next").disabled = byId("last").disabled = page === pages - 1;
  };
  const filter = () => {
    const wanted = controls.search.value.trim().toLowerCase();
    found = questions
      .map((question) => matching(question, controls.arm.value, controls.result.value, controls.other.value, wanted))
      .filter((one) => one !== null);
    page = 0;
    draw();
  };
  const turn = (to) => {
    page = to;
    draw();
  };
  const last = () => Math.ceil(found.length / PAGE) - 1;

  let waiting = 0;
  controls.search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 120);
  });
  for (const name of ["arm", "result", "other"]) controls[name].addEventListener("change", filter);
  form.addEventListener("submit", (submitted) => submitted.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  byId("first").addEventListener("click", () => turn(0));
  byId("previous").addEventListener("click", () => turn(page - 1));
  byId("next").addEventListener("click", () => turn(page + 1));
  byId("last").addEventListener("click", () => turn(last()));
  list.addEventListener("keydown", (pressed) => {
    const to = { ArrowLeft: page - 1, ArrowRight: page + 1, Home: 0, End: last() }[pressed.key];
    if (to === undefined || pressed.ctrlKey || pressed.metaKey || pressed.altKey) return;
    pressed.preventDefault();
    turn(to);
  });
  byId("no-script").hidden = true;
  form.hidden = false;
  filter();
})();

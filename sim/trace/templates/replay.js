"use strict";

(async () => {
  const $ = (selector) => document.querySelector(selector);
  const root = document.documentElement;
  const number = (value) => Math.round(value).toLocaleString("en-US");
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const make = (tag, properties = {}, children = []) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // ---- the run -------------------------------------------------------------------------------

  async function read() {
    const bytes = Uint8Array.from(atob($("#data").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).json();
  }

  const data = await read();
  const CYCLES = data.cycles;
  const STATES = data.states;

  /** How many of the ascending values are at most a value. */
  function countUntil(values, value) {
    let low = 0, high = values.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[middle] <= value) low = middle + 1; else high = middle;
    }
    return low;
  }

  /** A stage: where its spans begin, and its cycles in each state before each of them. */
  function makeTrack({ core, name, meaning, exact, lengths, counts }) {
    const starts = new Float64Array(lengths.length + 1);
    const before = STATES.map(() => new Float64Array(lengths.length + 1));
    lengths.forEach((length, i) => {
      starts[i + 1] = starts[i] + length;
      before.forEach((sums, state) => { sums[i + 1] = sums[i] + counts[state][i]; });
    });
    const spanAt = (cycle) => clamp(countUntil(starts, cycle) - 1, 0, lengths.length - 1);
    return {
      core, name, meaning, exact, starts, spanAt,
      label: name.replace("_", " "),
      counts: (state, i) => counts[state][i],
      /** Cycles in each state before a cycle. */
      until(cycle) {
        const i = spanAt(cycle);
        const part = (cycle - starts[i]) / (starts[i + 1] - starts[i]);
        return before.map((sums) => sums[i] + part * (sums[i + 1] - sums[i]));
      },
      /** Share of the cycles from one to another in each state. */
      shares(from, to) {
        const first = this.until(from);
        return this.until(to).map((count, state) => (count - first[state]) / (to - from));
      },
    };
  }

  const tracks = data.tracks.map(makeTrack);
  const cores = [...new Set(tracks.map((track) => track.core))].filter((core) => core !== null);
  const blocks = data.blocks;
  const blockCount = blocks.code.length;
  const doneAt = Float64Array.from({ length: blockCount }, (_, i) => {
    const end = data.maps[blocks.job[i]].linear ? blocks.qk_end[i] : blocks.pv_end[i];
    return end < 0 ? Infinity : end;
  });

  /** What the core's array did: operations in the order of their cycles. */
  const operations = cores.map((core) => {
    const found = [];
    for (let i = 0; i < blockCount; i++) {
      if (blocks.core[i] !== core) continue;
      if (blocks.qk[i] >= 0) found.push({ block: i, kind: "qk", start: blocks.qk[i], end: blocks.qk_end[i] });
      if (blocks.pv[i] >= 0) found.push({ block: i, kind: "pv", start: blocks.pv[i], end: blocks.pv_end[i] });
    }
    found.sort((a, b) => a.start - b.start);
    return { list: found, starts: Float64Array.from(found, (each) => each.start) };
  });
  const turns = Float64Array.from(operations.flatMap(({ list }) => list.map((each) => each.start))).sort();

  function operationAt(core, cycle) {
    const { list, starts } = operations[core];
    const found = list[countUntil(starts, cycle) - 1];
    return found && cycle < found.end ? found : null;
  }

  /** Blocks of a map, and the cells that its scheduler skipped, with the cycles of that. */
  const maps = data.maps.map((map, job) => {
    const own = [];
    for (let i = 0; i < blockCount; i++) if (blocks.job[i] === job) own.push(i);
    own.sort((a, b) => blocks.issued[a] - blocks.issued[b]);
    const cell = (row, column) => (row - map.first_row) * map.columns + column;
    const ofCell = Array.from({ length: map.rows * map.columns }, () => []);
    const passed = new Map(); // columns of each row that the scheduler has looked at
    const skipped = [];
    const rowKey = (i) => blocks.row[i] - map.first_row + map.rows * blocks.visit[i];
    const skip = (row, from, to, cycle) => {
      for (let column = from; column < to; column++) skipped.push([cycle, cell(row, column)]);
    };
    for (const i of own) {
      ofCell[cell(blocks.row[i], blocks.column[i])].push(i);
      skip(blocks.row[i], passed.get(rowKey(i))?.column ?? 0, blocks.column[i], blocks.issued[i]);
      passed.set(rowKey(i), { column: blocks.column[i] + 1, row: blocks.row[i], cycle: blocks.issued[i] });
    }
    for (const { column, row, cycle } of passed.values()) skip(row, column, map.columns, cycle);
    skipped.sort((a, b) => a[0] - b[0]);
    return {
      ...map, own, cell, ofCell, job,
      skippedAt: Float64Array.from(skipped, (each) => each[0]),
      skippedCells: Int32Array.from(skipped, (each) => each[1]),
      begins: own.length ? blocks.issued[own[0]] : Infinity,
    };
  });

  // ---- what is shown -------------------------------------------------------------------------

  const view = { cycle: 0, speed: CYCLES / 15, playing: false, job: null, core: 0, width: CYCLES, start: 0 };
  let frameCycles = 1; // cycles that the last step of the replay went through

  function choices(select, entries, chosen, change) {
    select.append(...entries.map(([value, textContent]) => make("option", { value, textContent })));
    select.value = chosen;
    select.disabled = entries.length < 2;
    select.addEventListener("change", () => { change(select.value); draw(); });
  }

  choices($("#job"), maps.length > 1 ? [["", ""], ...maps.map((map, i) => [i, map.label])] : [["", maps[0].label]], "",
    (value) => { view.job = value === "" ? null : +value; });
  choices($("#core"), cores.map((core) => [core, `core ${core}`]), 0, (value) => { view.core = +value; showTracks(); });
  choices($("#zoom"), [[CYCLES, "whole run"], ...[50000, 5000, 500, 50].filter((width) => width < CYCLES).map((width) => [width, `${number(width)} cycles`])],
    CYCLES, (value) => { view.width = +value || view.width; });
  const otherZoom = make("option", { value: "", hidden: true });
  $("#zoom").append(otherZoom);
  choices($("#speed"), [[CYCLES / 15, "run in 15 s"], [CYCLES / 60, "run in 60 s"], ...[10000, 1000, 100, 10].map((speed) => [speed, `${number(speed)} cycles/s`])],
    CYCLES / 15, (value) => { view.speed = +value; });

  // ---- map -----------------------------------------------------------------------------------

  const mapCanvas = $("#map");
  let cellSize = 1;

  function context(canvas, width, height) {
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    const drawing = canvas.getContext("2d");
    drawing.setTransform(ratio, 0, 0, ratio, 0, 0);
    drawing.clearRect(0, 0, width, height);
    return drawing;
  }

  function currentMap() {
    if (view.job !== null) return maps[view.job];
    let found = maps[0];
    for (const map of maps) if (map.begins <= view.cycle) found = map;
    return found;
  }

  /** How much of a block is done, from 0 to 1: the one half is QK, the other PV. */
  function progress(i, linear) {
    const part = (start, end) => (start < 0 || view.cycle < start ? 0 : Math.min((view.cycle - start) / (end - start), 1));
    const qk = part(blocks.qk[i], blocks.qk_end[i]);
    return linear ? qk : (qk + part(blocks.pv[i], blocks.pv_end[i])) / 2;
  }

  let palette = {};
  function takeColours() {
    const names = ["unknown", "w0", "w1", "w2", "w3", "ring", "line", "soft", "pe", ...STATES];
    palette = Object.fromEntries(names.map((name) => [name, colour(name)]));
  }

  function drawMap(map) {
    const room = mapCanvas.parentElement.clientWidth - 28;
    cellSize = Math.min(room / map.columns, 400 / map.rows, 64);
    const gap = cellSize > 6 ? 1 : 0;
    const side = cellSize - gap;
    const drawing = context(mapCanvas, cellSize * map.columns, cellSize * map.rows);
    const at = (cell) => [(cell % map.columns) * cellSize, Math.floor(cell / map.columns) * cellSize];
    const fill = (cell, style, part = 1) => {
      const [x, y] = at(cell);
      drawing.fillStyle = style;
      drawing.fillRect(x, y + side * (1 - part), side, side * part);
    };
    drawing.fillStyle = palette.unknown;
    for (let cell = 0; cell < map.rows * map.columns; cell++) {
      const [x, y] = at(cell);
      drawing.fillRect(x, y, side, side);
    }
    const seen = countUntil(map.skippedAt, view.cycle);
    for (let i = 0; i < seen; i++) fill(map.skippedCells[i], palette.w0);
    const parts = new Map();
    for (const i of map.own) {
      if (blocks.issued[i] > view.cycle) break;
      const cell = map.cell(blocks.row[i], blocks.column[i]);
      const found = parts.get(cell) ?? { code: blocks.code[i], done: 0 };
      found.done += progress(i, map.linear) / map.visits;
      parts.set(cell, found);
    }
    for (const [cell, { code, done }] of parts) {
      fill(cell, palette.unknown);
      if (side > 4) {
        const [x, y] = at(cell);
        drawing.strokeStyle = palette[`w${code}`];
        drawing.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
      }
      fill(cell, palette[`w${code}`], done);
    }
    drawing.strokeStyle = palette.ring;
    drawing.lineWidth = 2;
    for (const core of cores) {
      const operation = operationAt(core, view.cycle);
      if (!operation || blocks.job[operation.block] !== map.job) continue;
      const [x, y] = at(map.cell(blocks.row[operation.block], blocks.column[operation.block]));
      const size = Math.max(side, 5);
      drawing.strokeRect(x - 1, y - 1, size + 2, size + 2);
    }
  }

  const widthRows = data.bits.map((bits) => {
    const row = $(`#widths tr[data-bits="${bits}"]`);
    return Object.fromEntries([...row.querySelectorAll("td")].map((cell) => [cell.dataset.what, cell]));
  });

  function showWidths(map) {
    const done = data.bits.map(() => 0), all = data.bits.map(() => 0), cycles = data.bits.map(() => 0);
    const spent = (start, end) => (start < 0 ? 0 : clamp(view.cycle - start, 0, end - start));
    for (const i of map.own) {
      const code = blocks.code[i];
      all[code] += 1;
      done[code] += doneAt[i] <= view.cycle;
      cycles[code] += spent(blocks.qk[i], blocks.qk_end[i]) + spent(blocks.pv[i], blocks.pv_end[i]);
    }
    all[0] = map.skippedAt.length;
    done[0] = countUntil(map.skippedAt, view.cycle);
    widthRows.forEach((row, code) => {
      row.done.textContent = number(done[code]);
      row.all.textContent = number(all[code]);
      if (code) row.cycles.textContent = number(cycles[code]);
    });
  }

  // ---- machine -------------------------------------------------------------------------------

  function named(i) {
    const [row, column] = maps[blocks.job[i]].linear ? ["outputs", "chunk"] : ["row", "column"];
    return `${row} ${blocks.row[i]}, ${column} ${blocks.column[i]}, ${data.bits[blocks.code[i]]} bit`;
  }

  function showBar(bar, shares) {
    let left = 0;
    [...bar.children].forEach((rect, state) => {
      const width = shares[state] * bar.dataset.width;
      rect.setAttribute("x", left);
      rect.setAttribute("width", width);
      left += width;
    });
  }

  /** The last cycles that the replay went through; of a replay at rest, the one it rests in. */
  function lastCycles() {
    const span = view.playing ? Math.max(1, frameCycles) : 1;
    const to = clamp(Math.floor(view.cycle) + 1, 1, CYCLES);
    return [Math.max(0, to - span), to];
  }

  function stateName(shares) {
    const most = shares.indexOf(Math.max(...shares));
    const idle = 1 - shares[0] - shares[1] - shares[2];
    return idle > shares[most] ? "" : STATES[most];
  }

  function trackOf(name) {
    return tracks.find((track) => track.name === name && (track.core === view.core || track.core === null));
  }

  function showMachine() {
    const [from, to] = lastCycles();
    for (const box of document.querySelectorAll("#machine .box")) {
      const name = box.dataset.box;
      const frame = box.querySelector(".frame");
      if (name === "array") {
        showArray(box, frame, from, to);
        continue;
      }
      const shares = trackOf(name).shares(from, to);
      const state = stateName(shares);
      frame.style.stroke = state ? palette[state] : "";
      box.querySelector(".state").textContent = state || "nothing to do";
      showBar(box.querySelector(".bar"), shares);
    }
    showSoftmax();
  }

  function showArray(box, frame, from, to) {
    const qk = trackOf("qk").shares(from, to), pv = trackOf("pv").shares(from, to);
    const total = qk.map((share, state) => share + pv[state]);
    const operation = operationAt(view.core, view.cycle);
    for (const [name, shares] of [["qk", qk], ["pv", pv]]) {
      const on = operation?.kind === name;
      const line = box.querySelector(`[data-line="${name}"]`);
      line.textContent = name.toUpperCase() + (on ? `  ${named(operation.block)}` : "");
      line.classList.toggle("on", on);
      showBar(box.querySelector(`[data-track="${name}"]`), shares);
    }
    const state = stateName(total);
    frame.style.stroke = state ? palette[state] : "";
    const part = operation ? Math.round(100 * clamp(total[0], 0, 1)) : 0;
    const inner = operation ? palette[`w${blocks.code[operation.block]}`] : palette.pe;
    $("#machine .pe").style.fill = `color-mix(in srgb, ${inner} ${part}%, ${palette.pe})`;
  }

  /** Blocks whose scores are on their way to the array again. */
  function showSoftmax() {
    const waiting = [];
    const { list, starts } = operations[view.core];
    for (let i = countUntil(starts, view.cycle) - 1; i >= 0 && i > countUntil(starts, view.cycle) - 8; i--) {
      const { block, kind } = list[i];
      const pv = blocks.pv[block];
      if (kind === "qk" && !data.maps[blocks.job[block]].linear && (pv < 0 || pv > view.cycle)) waiting.unshift(`(${blocks.row[block]}, ${blocks.column[block]})`);
    }
    $("#machine .second").textContent = waiting.join(" ");
  }

  // ---- where the cycles go -------------------------------------------------------------------

  let strips = [];

  function showTracks() {
    const body = $("#tracks tbody");
    body.replaceChildren();
    const shown = tracks.filter((track) => track.core === view.core || track.core === null);
    const rows = [null, ...shown];
    strips = rows.map((track) => {
      const canvas = make("canvas");
      const counts = STATES.map((state) => {
        const cell = make("td", { className: "count", textContent: track ? "0" : "" });
        if (track) cell.dataset.state = state;
        return cell;
      });
      const name = track ? (track.core === null ? `memory ${track.label}` : track.label) : "array: width of its block";
      const row = make("tr", {}, [make("th", { textContent: name, title: track ? track.meaning : "" }), make("td", { className: "strip" }, [canvas]), ...counts]);
      if (track) row.dataset.track = track.name;
      body.append(row);
      canvas.addEventListener("pointerdown", (event) => grab(event, canvas));
      canvas.addEventListener("pointermove", (event) => hoverStrip(event, canvas, track));
      canvas.addEventListener("pointerleave", hideTip);
      canvas.addEventListener("wheel", (event) => zoomAt(event, canvas), { passive: false });
      return { track, canvas, counts };
    });
    drawn = "";
  }

  let drawn = ""; // what the strips show
  let grabbed = false;

  function placeWindow() {
    view.width = clamp(view.width, Math.min(20, CYCLES), CYCLES);
    otherZoom.textContent = `${number(view.width)} cycles`;
    $("#zoom").value = view.width;
    if ($("#zoom").selectedIndex < 0) $("#zoom").value = "";
    if (!grabbed) view.start = clamp(view.cycle - view.width / 2, 0, CYCLES - view.width);
  }

  function drawStrips() {
    placeWindow();
    const width = strips[0].canvas.parentElement.clientWidth;
    const wanted = [view.start, view.width, width, view.core, palette.busy].join();
    if (wanted !== drawn) {
      drawn = wanted;
      for (const { track, canvas } of strips) {
        const drawing = context(canvas, width, 20);
        if (track) drawStates(drawing, track, width); else drawOperations(drawing, width);
      }
      drawRuler(width);
    }
    const head = $("#head"), left = strips[0].canvas.parentElement, last = strips.at(-1).canvas.parentElement;
    head.hidden = false;
    head.style.left = `${left.offsetLeft + (view.cycle - view.start) / view.width * width}px`;
    head.style.top = `${left.offsetTop}px`;
    head.style.height = `${last.offsetTop + last.offsetHeight - left.offsetTop}px`;
    for (const { track, counts } of strips) {
      if (track) track.until(view.cycle).forEach((count, state) => { counts[state].textContent = number(count); });
    }
  }

  function drawStates(drawing, track, width) {
    for (let x = 0; x < width; x++) {
      const from = view.start + x / width * view.width;
      const shares = track.shares(from, from + view.width / width);
      let y = 20;
      shares.forEach((share, state) => {
        drawing.fillStyle = palette[STATES[state]];
        drawing.fillRect(x, y - 20 * share, 1, 20 * share);
        y -= 20 * share;
      });
    }
  }

  function drawOperations(drawing, width) {
    const { list, starts } = operations[view.core];
    const cyclesOfPixel = view.width / width;
    let i = Math.max(countUntil(starts, view.start) - 1, 0), reached = -1;
    for (; i < list.length && list[i].start < view.start + view.width; i++) {
      const { block, kind, start, end } = list[i];
      const x = (start - view.start) / cyclesOfPixel, length = Math.max((end - start) / cyclesOfPixel, 1);
      if (x + length < reached + 1) continue;
      reached = x + length;
      drawing.fillStyle = palette[`w${blocks.code[block]}`];
      drawing.fillRect(x, kind === "qk" ? 0 : 4, length > 3 ? length - 0.7 : length, 16);
    }
  }

  function drawRuler(width) {
    const step = [1, 2, 5].flatMap((digit) => Array.from({ length: 10 }, (_, power) => digit * 10 ** power))
      .sort((a, b) => a - b).find((each) => each / view.width * width >= 90);
    const marks = [];
    for (let cycle = Math.ceil(view.start / step) * step; cycle <= view.start + view.width; cycle += step) {
      const mark = make("span", { textContent: number(cycle) });
      mark.style.left = `${(cycle - view.start) / view.width * width}px`;
      marks.push(mark);
    }
    $("#ruler").replaceChildren(...marks);
  }

  function cycleAt(event, canvas) {
    const { left, width } = canvas.getBoundingClientRect();
    return clamp(view.start + (event.clientX - left) / width * view.width, 0, CYCLES);
  }

  function grab(event, canvas) {
    grabbed = true;
    canvas.setPointerCapture(event.pointerId);
    canvas.addEventListener("pointerup", () => { grabbed = false; draw(); }, { once: true });
    view.playing = false;
    go(cycleAt(event, canvas));
  }

  function zoomAt(event, canvas) {
    event.preventDefault();
    const cycle = cycleAt(event, canvas);
    view.width = clamp(view.width * 1.2 ** Math.sign(event.deltaY), 20, CYCLES);
    go(cycle);
  }

  // ---- hints ---------------------------------------------------------------------------------

  function showTip(event, text) {
    const tip = $("#tip-box");
    tip.textContent = text;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${clamp(event.clientX + 14, 0, innerWidth - width - 4)}px`;
    tip.style.top = `${clamp(event.clientY + 14, 0, innerHeight - height - 4)}px`;
  }

  function hideTip() { $("#tip-box").hidden = true; }

  function hoverStrip(event, canvas, track) {
    if (grabbed) go(cycleAt(event, canvas));
    const cycle = Math.min(cycleAt(event, canvas), CYCLES - 1);
    if (!track) {
      const operation = operationAt(view.core, cycle);
      showTip(event, operation ? `${operation.kind.toUpperCase()} of ${named(operation.block)}\n${cyclesText(operation.start, operation.end)}` : `cycle ${number(cycle)}: the array waits`);
      return;
    }
    const i = track.spanAt(cycle);
    const shares = STATES.map((_, state) => track.counts(state, i) / (track.starts[i + 1] - track.starts[i]));
    const state = track.exact ? stateName(shares) || "nothing to do" : STATES.map((name, k) => `${name} ${Math.round(100 * shares[k])} %`).join(", ");
    showTip(event, `${track.label}: ${state}\n${cyclesText(track.starts[i], track.starts[i + 1])}\n${track.meaning}`);
  }

  const cyclesText = (start, end) => `cycles ${number(start)} to ${number(end - 1)}: ${number(end - start)}`;

  mapCanvas.addEventListener("pointermove", (event) => {
    const map = currentMap();
    const { left, top } = mapCanvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - left) / cellSize), row = Math.floor((event.clientY - top) / cellSize);
    if (row < 0 || column < 0 || row >= map.rows || column >= map.columns) return;
    showTip(event, describe(map, row + map.first_row, column));
  });
  mapCanvas.addEventListener("pointerleave", hideTip);

  function describe(map, row, column) {
    const found = map.ofCell[map.cell(row, column)];
    const where = map.linear ? `outputs ${row}, chunk ${column}` : `row ${row}, column ${column}`;
    if (!found.length) return `${where}\n0 bit: skipped, no cycle in the array`;
    const lines = [`${where}: ${data.bits[blocks.code[found[0]]]} bit`];
    if (map.linear) {
      const spent = found.reduce((sum, i) => sum + blocks.qk_end[i] - blocks.qk[i], 0);
      return [...lines, `${number(found.length)} blocks of tokens, ${number(spent)} cycles in the array`].join("\n");
    }
    const [i] = found;
    lines.push(`asked for in cycle ${number(blocks.issued[i])}${cores.length > 1 ? ` by core ${blocks.core[i]}` : ""}`);
    if (blocks.qk[i] >= 0) lines.push(`QK ${cyclesText(blocks.qk[i], blocks.qk_end[i])}`);
    if (blocks.pv[i] >= 0) lines.push(`PV ${cyclesText(blocks.pv[i], blocks.pv_end[i])}`);
    return lines.join("\n");
  }

  // ---- replay --------------------------------------------------------------------------------

  function draw() {
    const map = currentMap();
    if (view.job === null) $("#job").options[0].textContent = maps.length > 1 ? `at work: ${map.label}` : map.label;
    drawMap(map);
    showWidths(map);
    showMachine();
    drawStrips();
    $("#scrub").value = view.cycle;
    $("#cycle").textContent = `cycle ${number(Math.floor(view.cycle))} of ${number(CYCLES)}`;
    $("#play").textContent = view.playing ? "⏸" : "▶";
    root.dataset.cycle = Math.floor(view.cycle);
    root.dataset.playing = view.playing;
  }

  function go(cycle) {
    view.cycle = clamp(cycle, 0, CYCLES);
    draw();
  }

  let before = 0;
  function step(now) {
    if (!view.playing) return;
    // A page that was hidden goes on where it was.
    frameCycles = view.speed * Math.min(now - before, 100) / 1000;
    before = now;
    if (view.cycle + frameCycles >= CYCLES) view.playing = false;
    go(view.cycle + frameCycles);
    if (view.playing) requestAnimationFrame(step);
  }

  function play() {
    if (view.playing) return;
    if (view.cycle >= CYCLES) view.cycle = 0;
    view.playing = true;
    before = performance.now();
    requestAnimationFrame(step);
    draw();
  }

  function pause() {
    view.playing = false;
    draw();
  }

  const toggle = () => (view.playing ? pause() : play());
  const stepTo = (forward) => {
    view.playing = false;
    const i = countUntil(turns, view.cycle);
    // Back: before the turn that has begun in just this cycle.
    const here = i > 0 && turns[i - 1] === view.cycle ? countUntil(turns, view.cycle - 0.5) : i;
    go(forward ? turns[i] ?? CYCLES : turns[here - 1] ?? 0);
  };

  function setTheme(theme) {
    root.dataset.theme = theme;
    takeColours();
    drawn = "";
    draw();
  }

  const otherTheme = () => setTheme(root.dataset.theme === "dark" ? "light" : "dark");
  $("#play").addEventListener("click", toggle);
  $("#back").addEventListener("click", () => stepTo(false));
  $("#next").addEventListener("click", () => stepTo(true));
  $("#theme").addEventListener("click", otherTheme);
  $("#scrub").max = CYCLES;
  $("#scrub").addEventListener("input", (event) => { view.playing = false; go(+event.target.value); });
  addEventListener("resize", draw);
  addEventListener("keydown", (event) => {
    if (event.target instanceof HTMLSelectElement || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = { " ": toggle, t: otherTheme, ArrowLeft: () => stepTo(false), ArrowRight: () => stepTo(true), Home: () => go(0), End: () => go(CYCLES) }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });

  // Settings after the # of the address: cycle (then it does not play), theme, core, zoom.
  const wanted = new URLSearchParams(location.hash.slice(1));
  if (wanted.has("core")) view.core = clamp(+wanted.get("core"), 0, cores.length - 1);
  if (wanted.has("zoom")) view.width = +wanted.get("zoom");
  $("#core").value = view.core;
  showTracks();
  view.cycle = clamp(+(wanted.get("cycle") ?? 0), 0, CYCLES);
  setTheme(wanted.get("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  root.dataset.ready = "yes";
  if (!wanted.has("cycle") && !matchMedia("(prefers-reduced-motion: reduce)").matches) play();
})();

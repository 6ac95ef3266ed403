"use strict";
// Maps on canvases that zoom and move together, profiles, sliders, tables that sort. Asks nobody for anything.
(async () => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const byId = (id) => document.getElementById(id);
  const short = (value) => value === 0 ? "0" : Math.abs(value) >= 0.01 && Math.abs(value) < 1e6 ? String(+value.toPrecision(3)) : value.toExponential(1);

  async function unpack(packed) {
    const stream = new Blob([bytesOf(packed.data)]).stream().pipeThrough(new DecompressionStream("deflate"));
    const planes = new Uint8Array(await new Response(stream).arrayBuffer());
    const count = packed.shape[0] * packed.shape[1], values = new Float64Array(count);
    for (let i = 0; i < count; i++) {
      const code = planes[i] + 256 * planes[count + i];
      values[i] = code ? Math.exp(packed.origin + packed.step * (code - 1)) : 0;
    }
    return values;
  }

  const colors = Object.fromEntries(Object.entries(data.colors).map(([name, text]) => [name, bytesOf(text)]));

  // A picture of one pixel a value; `place` gives 0..1 along the colours.
  function picture(height, width, values, place, table) {
    const canvas = document.createElement("canvas");
    canvas.width = width; canvas.height = height;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    for (let i = 0; i < height * width; i++) {
      const color = 3 * Math.round(255 * Math.min(1, Math.max(0, place(values[i]))));
      for (let k = 0; k < 3; k++) image.data[4 * i + k] = table[color + k];
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  function bar(figure, low, high, table) {
    const ramp = picture(1, 256, Float64Array.from({ length: 256 }, (_, i) => i / 255), (value) => value, table);
    figure.querySelector(".bar").getContext("2d").drawImage(ramp, 0, 0);
    figure.querySelector(".low").textContent = low;
    figure.querySelector(".high").textContent = high;
  }

  function fit(canvas, ratio) {
    const width = Math.max(1, Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)));
    const height = Math.round(width * ratio);
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  }

  // What all maps show: the middle as a share of the image, and how much larger than the whole image.
  const view = { y: 0.5, x: 0.5, zoom: 1 };
  const maps = [];

  class PixelMap {
    constructor(figure, described, values, error) {
      Object.assign(this, { figure, described, values, error });
      [this.height, this.width] = described.values.shape;
      this.canvas = figure.querySelector("canvas");
      this.canvas.style.aspectRatio = `${this.width} / ${this.height}`;
      this.probe = null;
      this.fingers = new Map();
      this.listen();
    }
    color(logarithmic, ends) {
      const [low, high] = ends, mean = this.described.mean;
      const place = logarithmic
        ? (value) => value > 0 ? Math.log(value / mean / low) / Math.log(high / low) : 0
        : (value) => value / mean / high;
      this.picture = picture(this.height, this.width, this.values, place, colors.magma);
      bar(this.figure, short(low), (logarithmic ? "" : "\u2265 ") + short(high) + " x mean", colors.magma);
    }
    get scale() { return this.canvas.width / this.width * view.zoom; }
    at(event) {
      const box = this.canvas.getBoundingClientRect();
      return {
        y: view.y + ((event.clientY - box.top) / box.height - 0.5) / view.zoom,
        x: view.x + ((event.clientX - box.left) / box.width - 0.5) / view.zoom,
      };
    }
    // Let all maps show what holds 99 % of the mass of this one.
    show() {
      const points = this.described.lines.flatMap(({ lines }) => lines.flat());
      if (!points.length) return;
      const [ys, xs] = [0, 1].map((axis) => points.map((point) => point[axis]));
      const sides = [[ys, this.height], [xs, this.width]].map(([places, length]) => {
        const low = Math.min(...places), high = Math.max(...places);
        return { middle: (low + high + 1) / 2 / length, share: 1.2 * (high - low + 1) / length };
      });
      Object.assign(view, { y: sides[0].middle, x: sides[1].middle, zoom: 1 });
      zoom(1 / Math.max(sides[0].share, sides[1].share), view);
    }
    draw() {
      fit(this.canvas, this.height / this.width);
      const context = this.canvas.getContext("2d"), scale = this.scale;
      const left = this.canvas.width / 2 - view.x * this.width * scale, top = this.canvas.height / 2 - view.y * this.height * scale;
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.fillStyle = "#555";
      context.fillRect(0, 0, this.canvas.width, this.canvas.height);
      context.imageSmoothingEnabled = false;
      context.drawImage(this.picture, left, top, this.width * scale, this.height * scale);
      // Pixel (y, x) covers y - 0.5 to y + 0.5.
      const X = (x) => left + (x + 0.5) * scale, Y = (y) => top + (y + 0.5) * scale;
      const thin = window.devicePixelRatio || 1;
      const stroke = (style, width, dash) => {
        for (const [color, more] of [["#000", 2], [style, 0]]) {
          context.strokeStyle = color; context.lineWidth = (width + more) * thin; context.setLineDash(more ? [] : dash.map((d) => d * thin)); context.stroke();
        }
      };
      if (byId("contours").checked) for (const { share, lines } of this.described.lines) {
        context.beginPath();
        for (const line of lines) line.forEach(([y, x], i) => i ? context.lineTo(X(x), Y(y)) : context.moveTo(X(x), Y(y)));
        stroke(share < 0.9 ? "#56b4e9" : "#ff8ad0", 1.5, []);
      }
      if (byId("boxes").checked && this.described.box) {
        const [y0, x0, y1, x1] = this.described.box;
        context.beginPath(); context.rect(X(x0 - 0.5), Y(y0 - 0.5), (x1 - x0 + 1) * scale, (y1 - y0 + 1) * scale); stroke("#fff", 1.5, [6, 4]);
      }
      if (byId("boxes").checked && this.described.unit) {
        const [y, x] = this.described.unit, arm = 6 * thin;
        context.beginPath(); context.moveTo(X(x) - arm, Y(y)); context.lineTo(X(x) + arm, Y(y)); context.moveTo(X(x), Y(y) - arm); context.lineTo(X(x), Y(y) + arm); stroke("#fff", 1.5, []);
      }
      if (this.probe) {
        const [y, x] = this.probe, side = Math.max(scale, 5 * thin);
        context.beginPath(); context.rect(X(x) - side / 2, Y(y) - side / 2, side, side); stroke("#0f0", 1.5, []);
      }
      this.figure.classList.toggle("near", view.zoom > 1);
    }
    read() {
      const place = this.figure.querySelector(".readout");
      if (!this.probe) { place.textContent = "\u00a0"; return; }
      const [y, x] = this.probe, i = y * this.width + x, mean = this.described.mean, period = this.described.period;
      let words = `(y ${y}, x ${x}): ${short(this.values[i] / mean)}`;
      if (this.error) words += ` \u00b1 ${short(this.error[i] / mean)}`;
      words += " x mean";
      if (period && Math.max(...period) > 1) words += `, phase (${y % period[0]}, ${x % period[1]})`;
      place.textContent = words;
    }
    listen() {
      const canvas = this.canvas;
      canvas.addEventListener("pointerdown", (event) => {
        canvas.focus({ preventScroll: true });
        canvas.setPointerCapture(event.pointerId);
        this.fingers.set(event.pointerId, event);
      });
      canvas.addEventListener("pointermove", (event) => {
        const before = this.fingers.get(event.pointerId), box = canvas.getBoundingClientRect();
        if (before && this.fingers.size === 2) {
          const other = [...this.fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
          const apart = (finger) => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY);
          if (apart(before) > 0) zoom(apart(event) / apart(before), this.at(other));
        } else if (before) {
          move((before.clientY - event.clientY) / box.height / view.zoom, (before.clientX - event.clientX) / box.width / view.zoom);
        }
        if (before) this.fingers.set(event.pointerId, event);
        probe(this.at(event));
      });
      for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => this.fingers.delete(event.pointerId));
      canvas.addEventListener("pointerleave", () => { if (document.activeElement !== canvas) probe(null); });
      canvas.addEventListener("wheel", (event) => {
        // Only a map that was clicked takes the wheel, or the page could not be scrolled past it.
        if (document.activeElement !== canvas && !event.ctrlKey) return;
        event.preventDefault();
        zoom(Math.exp(-event.deltaY / 300), this.at(event));
      }, { passive: false });
      canvas.addEventListener("dblclick", (event) => zoom(2, this.at(event)));
      canvas.addEventListener("keydown", (event) => {
        const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
        const here = this.probe || [Math.floor(view.y * this.height), Math.floor(view.x * this.width)];
        const spot = { y: (here[0] + 0.5) / this.height, x: (here[1] + 0.5) / this.width };
        if (steps) {
          if (this.probe) { spot.y += steps[0] / this.height; spot.x += steps[1] / this.width; }
          if (spot.y > 0 && spot.y < 1 && spot.x > 0 && spot.x < 1) { probe(spot); follow(spot); }
        } else if (event.key === "+" || event.key === "=") zoom(1.5, spot);
        else if (event.key === "-") zoom(1 / 1.5, spot);
        else if (event.key === "0") whole();
        else if (event.key === "Escape") { probe(null); canvas.blur(); }
        else return;
        event.preventDefault();
      });
    }
  }

  let waiting = false;
  function redraw() {
    document.body.dataset.zoom = String(+view.zoom.toFixed(4));
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; for (const map of maps) map.draw(); });
  }
  function bounded() {
    const reach = 0.5 / view.zoom;
    view.y = Math.min(1 - reach, Math.max(reach, view.y));
    view.x = Math.min(1 - reach, Math.max(reach, view.x));
    redraw();
  }
  function move(y, x) { view.y += y; view.x += x; bounded(); }
  function zoom(factor, spot) {
    // Down to eight pixels of the largest map.
    const most = Math.max(1, ...maps.map((map) => map.width / 8)), before = view.zoom;
    view.zoom = Math.min(most, Math.max(1, before * factor));
    view.y = spot.y + (view.y - spot.y) * before / view.zoom;
    view.x = spot.x + (view.x - spot.x) * before / view.zoom;
    bounded();
  }
  function whole() { Object.assign(view, { y: 0.5, x: 0.5, zoom: 1 }); redraw(); }
  function follow(spot) {
    const reach = 0.45 / view.zoom;
    view.y = Math.min(spot.y + reach, Math.max(spot.y - reach, view.y));
    view.x = Math.min(spot.x + reach, Math.max(spot.x - reach, view.x));
    bounded();
  }
  function probe(spot) {
    for (const map of maps) {
      const y = spot && Math.floor(spot.y * map.height), x = spot && Math.floor(spot.x * map.width);
      map.probe = spot && y >= 0 && x >= 0 && y < map.height && x < map.width ? [y, x] : null;
      map.read();
    }
    redraw();
  }
  function recolor() {
    const logarithmic = byId("logarithmic").checked, kind = logarithmic ? "log" : "linear";
    const ends = maps.map((map) => map.described[kind]);
    const all = [Math.min(...ends.map((end) => end[0])), Math.max(...ends.map((end) => end[1]))];
    maps.forEach((map, i) => map.color(logarithmic, byId("shared").checked ? all : ends[i]));
    redraw();
  }

  function profile(figure, described) {
    const [height, width] = described.shape, canvas = figure.querySelector("canvas"), line = figure.querySelector(".readout");
    const reach = described.reach, said = line.textContent;
    const shown = picture(height, width, described.values, (value) => 0.5 + (value - 1) / reach / 2, colors.diverging);
    bar(figure, short(+(1 - reach).toFixed(3)), (reach === 1 ? "\u2265 " : "") + short(1 + reach), colors.diverging);
    let spot = null;
    const draw = () => {
      canvas.style.aspectRatio = `${width} / ${height}`;
      fit(canvas, height / width);
      const context = canvas.getContext("2d"), side = canvas.width / width;
      context.imageSmoothingEnabled = false;
      context.drawImage(shown, 0, 0, canvas.width, canvas.height);
      if (!spot) { line.textContent = said; return; }
      const i = spot[0] * width + spot[1];
      context.strokeStyle = "#000"; context.lineWidth = 2; context.strokeRect(spot[1] * side, spot[0] * side, side, side);
      line.textContent = `phase (${spot[0]}, ${spot[1]}): ${described.values[i].toFixed(3)}` + (described.errors?.[i] == null ? "" : ` \u00b1 ${described.errors[i].toFixed(3)}`);
    };
    const inside = (y, x) => { spot = [Math.min(height - 1, Math.max(0, y)), Math.min(width - 1, Math.max(0, x))]; draw(); };
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      inside(Math.floor((event.clientY - box.top) / box.height * height), Math.floor((event.clientX - box.left) / box.width * width));
    });
    canvas.addEventListener("pointerleave", () => { spot = null; draw(); });
    canvas.addEventListener("blur", () => { spot = null; draw(); });
    canvas.addEventListener("keydown", (event) => {
      const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!steps) return;
      event.preventDefault();
      if (spot) inside(spot[0] + steps[0], spot[1] + steps[1]); else inside(0, 0);
    });
    return draw;
  }

  async function slider(figure, described) {
    const [height, width] = described.raw.shape, canvas = figure.querySelector("canvas"), range = figure.querySelector("input");
    const both = [];
    for (const packed of [described.raw, described.debiased]) both.push(picture(height, width, await unpack(packed), (value) => value / described.end, colors.magma));
    canvas.width = 2 * width; canvas.height = 2 * height;
    const draw = () => {
      const context = canvas.getContext("2d"), cut = Math.round(canvas.width * range.value / 100);
      context.imageSmoothingEnabled = false;
      context.drawImage(both[1], 0, 0, canvas.width, canvas.height);
      context.save(); context.beginPath(); context.rect(0, 0, cut, canvas.height); context.clip();
      context.drawImage(both[0], 0, 0, canvas.width, canvas.height); context.restore();
      context.fillStyle = "#0f0"; if (cut > 0 && cut < canvas.width) context.fillRect(cut - 1, 0, 2, canvas.height);
    };
    range.addEventListener("input", draw);
    draw();
  }

  function save(name, parts) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(parts));
    link.download = name.replace(/[^\w.-]+/g, "_");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  function npy(values, shape) {
    let head = `{'descr': '<f8', 'fortran_order': False, 'shape': (${shape.join(", ")}), }`;
    head = head.padEnd(Math.ceil((head.length + 11) / 64) * 64 - 11) + "\n";
    const begin = new Uint8Array(10 + head.length);
    begin.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, head.length & 255, head.length >> 8]);
    for (let i = 0; i < head.length; i++) begin[10 + i] = head.charCodeAt(i);
    return [begin, values];
  }

  function sortable(table) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button"; button.append(...head.childNodes); head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent.trim(); };
        const compare = (a, b) => {
          const x = parseFloat(key(a)), y = parseFloat(key(b));
          return !isNaN(x) && !isNaN(y) ? x - y : key(a).localeCompare(key(b), "en", { numeric: true });
        };
        body.append(...[...body.rows].sort((a, b) => down ? compare(b, a) : compare(a, b)));
      });
    });
  }

  for (const table of document.querySelectorAll("table.sortable")) sortable(table);
  const draws = [];
  for (const figure of document.querySelectorAll(".profile")) draws.push(profile(figure, data.profiles[figure.dataset.profile]));
  for (const figure of document.querySelectorAll(".map")) {
    const described = data.maps[figure.dataset.map];
    const map = new PixelMap(figure, described, await unpack(described.values), described.error && await unpack(described.error));
    maps.push(map);
    for (const button of figure.querySelectorAll("[data-file]")) {
      const values = map[button.dataset.file];
      if (!values) button.remove();
      else button.addEventListener("click", () => save(`${described.title}_${button.dataset.file}.npy`, npy(values, described.values.shape)));
    }
  }
  for (const map of maps) {
    const button = map.figure.querySelector("[data-show]");
    if (map.described.lines.some(({ lines }) => lines.length)) button.addEventListener("click", () => map.show());
    else button.remove();
  }
  recolor();
  for (const figure of document.querySelectorAll(".compare")) await slider(figure, data.saliency[figure.dataset.saliency]);
  for (const id of ["logarithmic", "shared"]) byId(id).addEventListener("change", recolor);
  for (const id of ["boxes", "contours"]) byId(id).addEventListener("change", redraw);
  byId("closer").addEventListener("click", () => zoom(1.5, view));
  byId("farther").addEventListener("click", () => zoom(1 / 1.5, view));
  byId("whole").addEventListener("click", whole);
  byId("numbers").addEventListener("click", () => save("numbers.json", [JSON.stringify({ record: data.record, networks: data.numbers }, null, 1)]));
  const resized = () => { redraw(); for (const draw of draws) draw(); };
  window.addEventListener("resize", resized);
  for (const draw of draws) draw();
  document.body.dataset.ready = "yes";
})();

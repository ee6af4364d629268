"use strict";
// The map: draws the cells of the data block on a canvas. Texts are set with textContent, never as HTML.
(() => {
  const $ = (id) => document.getElementById(id);
  const copy = $("copy");
  copy.addEventListener("click", () => {
    const text = $("methods").innerText + "\n\n" +
      [...document.querySelectorAll(".paper li")].map((li, i) => `[${i + 1}] ${li.innerText}`).join("\n");
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    copy.textContent = done ? "Copied" : "Select the text to copy it";
    setTimeout(() => { copy.textContent = "Copy text"; }, 1800);
  });

  const canvas = $("map");
  if (!canvas) return;
  const data = JSON.parse($("data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const u16 = (text) => {
    const raw = bytes(text), view = new DataView(raw.buffer), out = new Uint16Array(raw.length / 2);
    for (let i = 0; i < out.length; i++) out[i] = view.getUint16(2 * i, true);
    return out;
  };
  const n = data.n, xs = u16(data.x), ys = u16(data.y);
  const field = { label: u16(data.label), cluster: u16(data.cluster), runner: u16(data.runner), probability: bytes(data.probability) };
  for (const name of ["sample", "own"]) if (data[name]) field[name] = u16(data[name]);
  const names = { label: data.labels, cluster: data.clusters, sample: data.samples, own: data.owns };
  const titles = { label: "Label", probability: "Probability", cluster: "Cluster", sample: "Sample", own: "Your labels" };
  const hidden = { label: new Set(), cluster: new Set(), sample: new Set(), own: new Set() };
  const modes = ["label", "probability", "cluster", "sample", "own"].filter((mode) => field[mode]);
  let mode = "label", view = { k: 1, x: 0, y: 0 }, width = 0, height = 0, hovered = -1;

  const hex = (c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16));
  const ramp = Array.from({ length: 256 }, (_, v) => {
    const t = (v / 255) * (data.ramp.length - 1), i = Math.min(Math.floor(t), data.ramp.length - 2);
    const a = hex(data.ramp[i]), b = hex(data.ramp[i + 1]);
    return `rgb(${a.map((c, j) => Math.round(c + (b[j] - c) * (t - i))).join(",")})`;
  });
  const colour = (kind, code) => {
    if (kind === "label") return data.colours[code];
    return names[kind][code] === "" ? "#a9adb5" : data.palette[code % data.palette.length];
  };
  const shown = (i) => mode === "probability" || !hidden[mode].has(field[mode][i]);

  // Cells are drawn in a fixed shuffled order, so that no group always lies on top.
  const order = new Uint32Array(n).map((_, i) => i);
  for (let i = n - 1, s = 12345; i > 0; i--) {
    s = (Math.imul(s, 1103515245) + 12345) & 0x7fffffff;
    const j = s % (i + 1), t = order[i];
    order[i] = order[j]; order[j] = t;
  }
  const pad = 16;
  const px = (i) => (pad + (xs[i] / 65535) * (width - 2 * pad)) * view.k + view.x;
  const py = (i) => (pad + (ys[i] / 65535) * (height - 2 * pad)) * view.k + view.y;
  const radius = () => Math.max(1.1, Math.min(4, Math.sqrt((width * height) / n) * 0.11)) * Math.sqrt(Math.min(view.k, 6));

  const centres = (kind) => {
    const lists = new Map();
    for (let i = 0; i < n; i++) {
      const code = field[kind][i];
      if (hidden[kind].has(code) || names[kind][code] === "unknown") continue;
      if (!lists.has(code)) lists.set(code, []);
      lists.get(code).push(i);
    }
    const part = (list, at, share) => at([...list].sort((a, b) => at(a) - at(b))[Math.floor((list.length - 1) * share)]);
    return [...lists].filter(([, list]) => list.length >= Math.max(8, n * 0.012))
      .sort((a, b) => b[1].length - a[1].length).slice(0, width < 500 ? 7 : 14)
      .map(([code, list]) => {
        // A small group's name stands above it, a large one's in its middle.
        const high = part(list, py, 0.04), low = part(list, py, 0.96), small = low - high < 70;
        return { text: names[kind][code], x: part(list, px, 0.5), y: small ? Math.max(high - 13, 9) : part(list, py, 0.5) };
      });
  };

  const draw = () => {
    const scale = window.devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const g = canvas.getContext("2d");
    g.setTransform(scale, 0, 0, scale, 0, 0);
    g.clearRect(0, 0, width, height);
    const r = radius();
    g.globalAlpha = n > 6000 ? 0.7 : 0.82;
    for (const i of order) {
      if (!shown(i)) continue;
      g.fillStyle = mode === "probability" ? ramp[field.probability[i]] : colour(mode, field[mode][i]);
      const x = px(i), y = py(i);
      if (x < -5 || y < -5 || x > width + 5 || y > height + 5) continue;
      if (r < 1.5) { g.fillRect(x - r, y - r, 2 * r, 2 * r); continue; }
      g.beginPath(); g.arc(x, y, r, 0, 6.2832); g.fill();
    }
    g.globalAlpha = 1;
    if (mode === "label" || mode === "cluster") write(g, style);
    if (hovered >= 0) {
      g.strokeStyle = style.getPropertyValue("--ink");
      g.lineWidth = 2;
      g.beginPath(); g.arc(px(hovered), py(hovered), r + 3, 0, 6.2832); g.stroke();
    }
  };

  const write = (g, style) => {
    const size = width < 500 ? 11 : 13, taken = [];
    g.font = `600 ${size}px ui-sans-serif, system-ui, "Segoe UI", Roboto, Arial, sans-serif`;
    g.textAlign = "center"; g.textBaseline = "middle"; g.lineJoin = "round"; g.lineWidth = 4;
    for (const c of centres(mode)) {
      const most = width < 500 ? 24 : 34, text = c.text.length > most ? c.text.slice(0, most - 1) + "…" : c.text;
      const w = g.measureText(text).width / 2 + 3;
      const x = Math.min(Math.max(c.x, w + 2), width - w - 2);
      const box = [x - w, c.y - size * 0.75, x + w, c.y + size * 0.75];
      if (taken.some((t) => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3])) continue;
      taken.push(box);
      g.strokeStyle = style.getPropertyValue("--card"); g.strokeText(text, x, c.y);
      g.fillStyle = style.getPropertyValue("--ink"); g.fillText(text, x, c.y);
    }
  };

  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const legend = () => {
    const box = $("legend");
    box.replaceChildren();
    if (mode === "probability") {
      const bar = element("div", undefined, "ramp"), scale = element("div", undefined, "scale");
      bar.style.background = `linear-gradient(90deg, ${data.ramp.join(",")})`;
      scale.append(element("span", "0"), element("span", "probability of the label"), element("span", "1"));
      box.append(bar, scale);
      return;
    }
    const counts = new Uint32Array(names[mode].length);
    for (const code of field[mode]) counts[code]++;
    names[mode].forEach((name, code) => {
      if (!counts[code]) return;
      const button = element("button"), dot = element("i", undefined, "dot");
      button.type = "button";
      dot.style.background = colour(mode, code);
      const text = mode === "cluster" ? `${name} · ${data.cluster_labels[code]}` : name || "(missing)";
      button.append(dot, element("span", text), element("small", counts[code].toLocaleString("en")));
      button.setAttribute("aria-pressed", String(!hidden[mode].has(code)));
      button.addEventListener("click", () => {
        if (!hidden[mode].delete(code)) hidden[mode].add(code);
        button.setAttribute("aria-pressed", String(!hidden[mode].has(code)));
        draw();
      });
      box.append(button);
    });
  };

  const nearest = (x, y) => {
    let best = -1, least = Math.max(9, radius() + 5) ** 2;
    for (let i = 0; i < n; i++) {
      if (!shown(i)) continue;
      const d = (px(i) - x) ** 2 + (py(i) - y) ** 2;
      if (d < least) { least = d; best = i; }
    }
    return best;
  };
  const tip = $("tip");
  const point = (x, y) => {
    const found = nearest(x, y);
    if (found === hovered) return;
    hovered = found;
    tip.hidden = found < 0;
    if (found >= 0) {
      const cluster = field.cluster[found], lines = [
        `probability ${(field.probability[found] / 255).toFixed(2)}`,
        data.runners[field.runner[found]] ? `runner-up: ${data.runners[field.runner[found]]}` : "",
        `cluster ${data.clusters[cluster]}: ${data.cluster_labels[cluster]}`,
        field.own ? `your label: ${data.owns[field.own[found]] || "(missing)"}` : "",
        field.sample ? `sample: ${data.samples[field.sample[found]] || "(missing)"}` : "",
      ];
      tip.replaceChildren(element("b", data.labels[field.label[found]]), ...lines.filter(Boolean).map((line) => element("div", line)));
      const at = px(found);
      tip.style.left = `${Math.max(0, Math.min(at + 14, width - tip.offsetWidth - 4))}px`;
      tip.style.top = `${Math.max(0, Math.min(py(found) + 16, height - tip.offsetHeight))}px`;
    }
    draw();
  };

  const zoom = (factor, x = width / 2, y = height / 2) => {
    const k = Math.min(Math.max(view.k * factor, 1), 40), ratio = k / view.k;
    view = { k, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio };
    keep();
  };
  const keep = () => {
    view.x = Math.min(0, Math.max(view.x, width * (1 - view.k)));
    view.y = Math.min(0, Math.max(view.y, height * (1 - view.k)));
    draw();
  };
  const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  const down = new Map();
  canvas.addEventListener("pointerdown", (event) => { down.set(event.pointerId, place(event)); point(...place(event)); });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event), old = down.get(event.pointerId);
    if (!old) { point(x, y); return; }
    if (down.size === 2) {
      const other = [...down].find(([id]) => id !== event.pointerId)[1];
      const before = Math.hypot(old[0] - other[0], old[1] - other[1]), after = Math.hypot(x - other[0], y - other[1]);
      if (before > 0) zoom(after / before, (x + other[0]) / 2, (y + other[1]) / 2);
    } else if (view.k > 1) { view.x += x - old[0]; view.y += y - old[1]; keep(); }
    down.set(event.pointerId, [x, y]);
  });
  for (const name of ["pointerup", "pointercancel"]) addEventListener(name, (event) => down.delete(event.pointerId));
  canvas.addEventListener("pointerleave", (event) => { down.delete(event.pointerId); point(-1e6, -1e6); });
  // The page must go on scrolling over the map: only a pinch, or the wheel with Ctrl, zooms.
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.01), ...place(event));
  }, { passive: false });
  $("zoom-in").addEventListener("click", () => zoom(1.6));
  $("zoom-out").addEventListener("click", () => zoom(1 / 1.6));
  $("zoom-reset").addEventListener("click", () => { view = { k: 1, x: 0, y: 0 }; draw(); });

  for (const name of modes) {
    const button = element("button", titles[name]);
    button.type = "button";
    button.setAttribute("aria-pressed", String(name === mode));
    button.addEventListener("click", () => {
      mode = name;
      hovered = -1; tip.hidden = true;
      for (const other of $("modes").children) other.setAttribute("aria-pressed", String(other === button));
      legend(); draw();
    });
    $("modes").append(button);
  }
  const fit = () => {
    width = $("stage").clientWidth;
    height = Math.round(Math.min(Math.max(width / data.aspect, width * 0.62), 600));
    canvas.style.height = `${height}px`;
    view = { k: 1, x: 0, y: 0 };
    draw();
  };
  addEventListener("resize", fit);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  legend(); fit();
})();

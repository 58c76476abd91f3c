/* Roles of one layer's channels as a bar; a click picks all channels of a role. */

function newRoles(store, state, tip) {
  const bar = make("div", { class: "roles" });
  const element = make("div", { class: "panel roles-panel" }, make("h4", {}, "What channels do"), bar);

  function draw(layer, columns) {
    const { role } = columns;
    const unknown = store.manifest.roles.indexOf("unknown");
    element.hidden = !role || !role.some((v) => v >= 0 && v !== unknown);
    if (element.hidden) return;
    const paints = painter(store.manifest.paints.role, role, element);
    bar.replaceChildren();
    store.manifest.roles.forEach((_, code) => {
      const n = role.reduce((sum, v) => sum + (v === code), 0);
      if (!n) return;
      const swatch = make("i", { class: "swatch" });
      swatch.style.background = css(paints, code, "");
      const button = make("button", { type: "button", onclick: () => pick(layer, role, code) }, swatch, `${store.manifest.roleLabels[code]} ${n.toLocaleString("en-US")}`);
      button.style.flexGrow = n;
      button.style.borderTopColor = css(paints, code, "");
      bar.append(button);
    });
    element.querySelector("h4").textContent = layer.follows ? `What channels do (followed by: ${written(layer.follows)})` : "What channels do";
  }

  function pick(layer, role, code) {
    const picked = new Uint8Array(state.nChannels);
    for (let c = 0; c < layer.n; c++) if (role[c] === code) picked[layer.start + c] = 1;
    state.set({ picked });
  }

  return { element, draw };
}

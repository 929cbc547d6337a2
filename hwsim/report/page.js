(function () {
  "use strict";
  var root = document.documentElement;
  var $ = function (id) { return document.getElementById(id); };
  document.querySelectorAll(".js").forEach(function (e) { e.hidden = false; });

  $("theme").addEventListener("click", function () {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  var table = $("all"), body = table && table.tBodies[0];
  if (table) {
    table.tHead.addEventListener("click", function (event) {
      var th = event.target.closest("th");
      if (!th) return;
      var column = th.cellIndex, words = th.classList.contains("l");
      var old = th.getAttribute("aria-sort");
      var up = old ? old === "descending" : words || column === 1;
      table.querySelectorAll("thead th").forEach(function (e) { e.removeAttribute("aria-sort"); });
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      var rows = Array.prototype.map.call(body.rows, function (row) {
        var said = row.cells[column].textContent;
        return { row: row, key: words ? said : said === "" ? -Infinity : parseFloat(said) };
      });
      rows.sort(function (a, b) {
        var d = words ? a.key.localeCompare(b.key, "en", { numeric: true }) : a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
        return up ? d : -d;
      });
      rows.forEach(function (r) { body.appendChild(r.row); });
    });
    var count = $("count"), total = body.rows.length;
    $("filter").addEventListener("input", function () {
      var words = this.value.toLowerCase().split(/\s+/).filter(Boolean), shown = 0;
      Array.prototype.forEach.call(body.rows, function (row) {
        var said = row.textContent.toLowerCase();
        row.hidden = !words.every(function (w) { return said.indexOf(w) >= 0; });
        if (!row.hidden) shown++;
      });
      count.textContent = shown === total ? "" : shown + " of " + total;
    });
  }

  var zoom = 1, wide = $("wide");
  var setZoom = function (factor) {
    var middle = (wide.parentNode.scrollLeft + wide.parentNode.clientWidth / 2) / wide.clientWidth;
    zoom = Math.max(1, Math.min(64, zoom * factor));
    wide.style.width = 100 * zoom + "%";
    wide.parentNode.scrollLeft = middle * wide.clientWidth - wide.parentNode.clientWidth / 2;
    $("zoomed").textContent = zoom + "×";
  };
  if (wide) {
    $("zoomin").addEventListener("click", function () { setZoom(2); });
    $("zoomout").addEventListener("click", function () { setZoom(0.5); });
  }

  var tip = $("tip");
  document.addEventListener("pointermove", function (event) {
    var on = event.target.closest && event.target.closest("[data-t]");
    tip.hidden = !on;
    if (!on) return;
    tip.textContent = on.getAttribute("data-t");
    var x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    var y = event.clientY + 18;
    if (y + tip.offsetHeight > innerHeight - 8) y = event.clientY - tip.offsetHeight - 12;
    tip.style.left = Math.max(8, x) + "px";
    tip.style.top = y + "px";
  });
})();

// Before anything is painted: the theme that was chosen here, else the system's.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    let chosen = null;
    try {
      chosen = localStorage.getItem("scalesim.theme");
    } catch {
      // No storage here: the system's theme holds.
    }
    document.documentElement.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
  };
  system.addEventListener("change", apply);
  apply();
})();

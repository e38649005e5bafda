"""Sources of the page for people, in TypeScript. `dist/` is what scripts/make-console makes of them and the gateway
hands out. This file is here so that it travels in the wheel."""

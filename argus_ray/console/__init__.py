"""Sources of the page for people, in TypeScript. `dist/` is what scripts/make-console makes of them, and what the gateway
hands out; this file is here so that it travels in the wheel."""

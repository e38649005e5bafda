"""The console in a real browser (Debian's Chromium), before the real gateway over a real service."""

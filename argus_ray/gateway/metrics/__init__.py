"""Curves and progress over HTTP, and the readers behind them."""

"""The demo's page: figures in, one self-contained HTML document out. Pure functions, no file is touched here."""

from __future__ import annotations

from anybit.cli.report.data import LayerBits, Method, Report, Variant
from anybit.cli.report.page import html

__all__ = ["LayerBits", "Method", "Report", "Variant", "html"]

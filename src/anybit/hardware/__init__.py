"""Targets: machines, real or imagined, that say what a plan costs."""

from anybit.hardware.roofline import ENERGY_45NM, Cost, Energy, Machine, OpCost, roofline

__all__ = ["ENERGY_45NM", "Cost", "Energy", "Machine", "OpCost", "roofline"]

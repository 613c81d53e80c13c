"""Other libraries' interfaces for emulated arithmetic on our rounding: a change of one import.

anybit.formats.compat.pychop   Chop, FaultChop, Chopf, Chopi, Customs of Pychop 0.6
anybit.formats.compat.chop     chop(x, options) of MATLAB's chop by Higham and Pranesh
"""

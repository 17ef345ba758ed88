"""Fixtures of roll-outs, which tests of several subjects share."""

from roll_outs_under_test import rolled_out, stage, standing

__all__ = ["rolled_out", "stage", "standing"]

"""Audits of trained checkpoints: what was tuned, is it what it says, how much is a Propulsion."""

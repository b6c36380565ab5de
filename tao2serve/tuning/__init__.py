"""Tuning: which of Triton's settings and which placement serve a deployed model best, by measuring it."""

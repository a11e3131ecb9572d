"""Tests of tickets: verdicts over seeds and controls."""

"""Deployable forms of a ticket."""

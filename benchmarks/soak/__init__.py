"""Servers, libraries and clusters under load, kills, full disks and hostile files."""

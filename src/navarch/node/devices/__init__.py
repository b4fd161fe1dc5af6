"""Devices that plugins bring: who registers them, which container has which, who asks about that."""

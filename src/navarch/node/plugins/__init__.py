"""Plugins that make themselves known by a socket in the kubelet's `plugins_registry`: CSI drivers and others."""

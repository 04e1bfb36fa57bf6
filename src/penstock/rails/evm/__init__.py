"""Every EVM network, by configuration: `codec` is pure, `rail` speaks to nodes."""

"""Events for merchants: `outbox` keeps them, `deliver` sends them, `targets` decides where to."""

"""The event loop, outcomes, timers, tasks, and log fields."""

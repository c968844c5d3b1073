"""Pod bandwidth limits by departure times: what pods ask for, and the queues that keep to it."""

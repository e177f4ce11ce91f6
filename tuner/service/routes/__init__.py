"""Routes of the service, a file for each kind of resource."""

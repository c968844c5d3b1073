"""What the agent answers over HTTP to load balancers, kubelets and scrapers: kube-proxy's ports.

Not the door of the command line (`lb.api`). Serving costs the data path nothing, and nobody who
asks can hold up the controller: answers about health are made without its lock.
"""

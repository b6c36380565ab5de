"""Files for running Triton, ClearML Serving and a proxy elsewhere: Docker Compose, Kubernetes."""

"""What runs inside a process of locust, and nowhere else: gevent has patched the standard library of that process."""

"""Load an endpoint by hand, with locust's own web page; the same user as `tao2serve loadtest`.

locust -f benchmarks/locustfile.py --host http://127.0.0.1:8080 --endpoint people --images DIR
"""

from tao2serve.loadtest.generator.locustfile import ImageUser

__all__ = ["ImageUser"]

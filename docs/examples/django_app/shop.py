"""A Django site in one file whose settings come from envd and change without a restart.

What Django reads once at its start (SECRET_KEY, DATABASES) is taken from envd then. What may
change is read where it is used: `env["GREETING"]` in a view is always the newest value.
"""

import atexit
import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

import envd

client = envd.connect_sync()
atexit.register(client.close)
env = client.environment(os.environ.get("APP_ENVIRONMENT", "shop/prod"))
env.require("GREETING", "SECRET_KEY")

settings.configure(
    SECRET_KEY=env["SECRET_KEY"],
    DEBUG=env.bool("DEBUG", default=False),
    ALLOWED_HOSTS=env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1"]),
    ROOT_URLCONF=__name__,
)


def greet(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{env['GREETING']}\n", content_type="text/plain")


def health(request: HttpRequest) -> HttpResponse:
    """Stale settings are worth knowing, and no reason to be restarted."""
    return JsonResponse({"ok": True, "revision": env.revision, "stale": env.stale})


urlpatterns = [path("", greet), path("healthz", health)]
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)

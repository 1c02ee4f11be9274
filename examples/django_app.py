"""Django and Channels in one file: a page, and a WebSocket that greets.

    pip install django channels
    pounce serve django_app:app
    curl http://127.0.0.1:8000/ada/
    python -m websockets ws://127.0.0.1:8000/greet/     # and type {"name": "ada"}
"""

import django
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

settings.configure(
    SECRET_KEY="an example has no secrets",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    # Behind a proxy that trusted_hosts names, request.is_secure() is right without any SECURE_PROXY_SSL_HEADER.
)
django.setup()


async def page(request: HttpRequest, name: str) -> JsonResponse:
    return JsonResponse({"hello": name, "secure": request.is_secure()})


class Greeter(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content, **options):
        await self.send_json({"hello": content["name"]})


urlpatterns = [path("<str:name>/", page)]
app = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": URLRouter([path("greet/", Greeter.as_asgi())])}
)

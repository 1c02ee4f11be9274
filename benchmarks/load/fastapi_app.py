"""The FastAPI application under test; apart, so that only its own loads pay for the import."""

from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    name: str
    price: float
    tags: list[str]


@app.get("/items/{number}")
async def get_item(number: int, q: str = "") -> dict[str, int | str]:
    return {"number": number, "q": q}


@app.post("/items")
async def post_item(item: Item) -> Item:
    return item


def query(q: str = "") -> str:
    return q


dependent = FastAPI()


@dependent.get("/items/{number}")
async def get_dependent(number: int, q: Annotated[str, Depends(query)]) -> dict[str, int | str]:
    return {"number": number, "q": q}

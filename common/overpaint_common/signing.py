"""Signatures over texts with a secret that both sides know: HMAC-SHA256 over the text in UTF-8, as hex."""

from __future__ import annotations

import hashlib
import hmac


def sign(text: str, secret: str) -> str:
    """The signature of exactly this text, as 64 lower-case hex digits."""
    # What is no Unicode gets a signature of its own, rather than an error in the middle of a comparison.
    return hmac.new(secret.encode(), text.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()


def verify(text: str, signature: str, secret: str) -> bool:
    """Whether `signature` is the text's, its letters in either case; the time taken tells nothing of the right one."""
    given = signature.lower().encode(errors="surrogatepass")
    return hmac.compare_digest(given, sign(text, secret).encode())

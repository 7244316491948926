"""One browser for a whole module."""

import chromium

browser = chromium.browser

"""The databases that stock ADK has filled."""

import stock_databases

stocked = stock_databases.stocked

"""The databases that stock ADK has filled."""

import stock_databases

stock_database_url = stock_databases.stock_database_url

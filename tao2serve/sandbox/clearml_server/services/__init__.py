"""The services of the API, one room each: routes, rules, vendor errors."""

"""Events: models, ids, standard types and the JSON document form."""

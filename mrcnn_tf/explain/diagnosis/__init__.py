"""A look inside a model: what each stage makes of an image, and where objects get lost."""






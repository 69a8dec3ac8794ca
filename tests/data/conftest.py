from made_up import faces, folder, own_cache  # noqa: F401, fixtures of all tests here

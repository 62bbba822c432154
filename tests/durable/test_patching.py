# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Functions of other packages are replaced once, and only where they are as expected."""

from __future__ import annotations

import types

import pytest

from mmlightvit.durable.patching import UnknownVersion, patch


@pytest.fixture
def package(monkeypatch):
    """A package of version 9.1 with a function and a class that has a static method."""
    module = types.ModuleType('somepackage')
    module.__version__ = '9.1'

    def load(name: str, strict: bool = False) -> tuple:
        return 'original', name, strict

    class Config:
        @staticmethod
        def find(name):
            return f'original {name}'

    module.load, module.Config = load, Config
    monkeypatch.setitem(__import__('sys').modules, 'somepackage', module)
    return module


def _louder(original):
    return lambda *args, **kwargs: ('louder', original(*args, **kwargs))


def test_a_function_is_replaced_once(package):
    for _ in range(2):
        patch('somepackage', 'load', _louder, '(name, strict=False)')
    assert package.load('a', strict=True) == ('louder', ('original', 'a', True))


def test_a_static_method_stays_one(package):
    patch('somepackage:Config', 'find', _louder, '(name)')
    assert package.Config().find('a') == package.Config.find('a') == ('louder', 'original a')


def test_another_signature_is_refused_with_the_version(package):
    stock = package.load
    with pytest.raises(UnknownVersion, match=r'somepackage 9\.1 .*load is \(name, strict=False\), expected \(name\)'):
        patch('somepackage', 'load', _louder, '(name)')
    with pytest.raises(UnknownVersion, match=r'strict=True'):
        patch('somepackage', 'load', _louder, '(name, strict=True)')
    assert package.load is stock


def test_a_function_that_has_gone_is_refused(package):
    with pytest.raises(UnknownVersion, match=r'somepackage\.Config\.absent is not there'):
        patch('somepackage:Config', 'absent', _louder, '()')
    with pytest.raises(UnknownVersion, match=r'somepackage 9\.1 .*somepackage\.Gone\.find is not there'):
        patch('somepackage:Gone', 'find', _louder, '(name)')

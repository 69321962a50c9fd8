"""Small templates that ask one question of Jinja2's semantics each; used by golden_jinja.py."""

VARIABLES = {
    "s": "Hello, World",
    "u": "Grüße, 日本 👩‍👧",
    "e": "",
    "w": "  a b\tc \n",
    "n": 7,
    "z": 0,
    "f": 2.5,
    "t": True,
    "no": False,
    "nil": None,
    "l": [3, 1, 2],
    "words": ["pear", "Apple", "fig", "apple"],
    "nested": [[1, 2], [3], []],
    "d": {"b": 2, "a": 1, "items": "mine", "C": None},
    "people": [
        {"name": "Ann", "age": 30, "tags": ["x", "y"], "home": {"city": "Ulm"}},
        {"name": "bob", "age": 25, "tags": [], "home": {"city": "Bonn"}},
        {"name": "Cid", "age": 30, "home": {}},
    ],
}

# each is wrapped in {{ }}
PRINTED = r"""
1
-1
1.0
1e3
1_000
0x1f
0b101
0o17
.5
'a' 'b'
'a\n\t\\\'\x41\u00e9\U0001F600\q'
"it's"
true
True
none
None
[1, 'a', 2.5, none, true]
[1, 2,]
(1, 2)
(1,)
()
{}
{'a': 1, "b": [1, {'c': 'd'}]}
{1: 'x', 1.5: 'y', true: 'z'}
'it\'s "x"'
['it\'s', "q\"", "a\nb", "é\u200b\x07"]
1 + 2
1 - 2
2 * 3
7 / 2
6 / 2
7 // 2
-7 // 2
7 // -2
7 % 3
-7 % 3
7 % -3
7.5 // 2
-7.5 % 2
2 ** 10
2 ** -1
2 ** 0.5
2 ** 3 ** 2
-2 ** 2
1 / 0
1 // 0
1 % 0
1.0 / 0
0.1 + 0.2
1e16
1e15
123456789012345680.0
0.0001
0.00001
1e22
1e100
1.5e-7
100000 * 100000 * 100000
9223372036854775807
true + true
true * 3
1 + true
'a' + 'b'
'a' + 1
1 + 'a'
'ab' * 3
3 * 'ab'
'ab' * 0
'ab' * -1
[1] + [2]
[1] * 3
(1,) + (2,)
[1] + (2,)
'a' ~ 1 ~ none ~ true ~ 1.5
1 ~ 2 + 3
1 + 2 ~ 3
'a' ~ missing
'a' + missing
missing + 'a'
missing
missing.x
missing['x']
missing()
missing | length
missing | upper
missing | default('x')
missing | d
none | default('x')
none | default('x', true)
'' | default('x')
'' | default('x', boolean=true)
0 | d(5, true)
missing == missing
missing == none
missing != 1
missing < 1
missing in [1]
1 in missing
not missing
missing or 'x'
missing and 'x'
d.missing
d.missing.more
d['missing']
d.a
d['a']
d['items']
d.items()
d.items() | list
d.keys() | list
d.values() | list
d.get('a')
d.get('q')
d.get('q', 5)
d.get('C', 5)
d | length
d | list
'a' in d
'q' in d
'q' not in d
1 in d
d == {'a': 1, 'b': 2, 'items': 'mine', 'C': none}
{'a': 1} == {'a': 1.0}
d.pop('a')
l.append(4)
d.update({'x': 1})
l[0]
l[-1]
l[5]
l[5] | default('none')
l[1:]
l[:-1]
l[::-1]
l[::2]
l[5:]
l[-2:]
l[1:100]
l[:1]
l[0:0]
l[::0]
n[1:]
nil[1:]
d[1:]
missing[1:]
l['a':]
l[:2.0]
l[true:]
l.0
l['x']
l[none]
l[true]
s[0]
s[-1]
s[1:4]
s[::-1]
s[100]
s[100:]
s[:-100]
u[0:5]
u[-3:]
u | length
u | upper
u | lower
u | title
u | capitalize
u | reverse
u.title()
'ß'.upper()
s | upper
s | lower
s | title
'hello wOrld-foo (bar) [baz]' | title
'hello wOrld-foo (bar)'.title()
"it's a dog's".title()
"it's a dog's" | title
s | capitalize
'hELLO'.capitalize()
'aBc'.swapcase()
s.upper()
s | length
s | count
s | first
s | last
s | list
s | reverse
s | wordcount
w | trim
w.strip()
w.lstrip()
w.rstrip()
'xxaxx' | trim('x')
'xxaxx'.strip('x')
'xyaxy'.strip('yx')
'abc'.strip('')
'abc'.lstrip('ab')
'abc'.rstrip('bc')
s.split(',')
s.split()
w.split()
w.split(' ')
'a,b,c'.split(',', 1)
'a,b,c'.rsplit(',', 1)
'a,b,c'.rsplit(',')
' a  b c '.split(none, 1)
' a  b c '.rsplit(none, 1)
' a  b c '.rsplit()
'abc'.split('')
''.split()
''.split(',')
'a,b'.split(sep=',')
'a\nb\r\nc\n'.splitlines()
'a\nb\r\nc\n'.splitlines(true)
'a-b-c'.partition('-')
'a-b-c'.rpartition('-')
'abc'.partition('x')
'abc'.rpartition('x')
s.startswith('He')
s.startswith('he')
s.startswith(('x', 'H'))
s.endswith('World')
s.endswith('')
s.startswith('W', 7)
s.startswith(1)
'abc'.removeprefix('a')
'abc'.removesuffix('c')
'abc'.removesuffix('x')
s.find('o')
s.rfind('o')
s.find('zz')
s.index('W')
s.index('zz')
s.count('l')
'aaa'.count('aa')
'abc'.count('')
u.find('日')
s.replace('l', 'L')
s.replace('l', 'L', 1)
s.replace('', '-')
'aaa'.replace('aa', 'b')
s | replace('o', '0')
s | replace('o', '0', 1)
n | replace(7, 8)
', '.join(words)
', '.join(l)
''.join([])
'x'.join('abc')
words | join(', ')
l | join
l | join('-')
l | join(d='+')
people | join(', ', attribute='name')
'' | join(',')
missing | join(',')
none | join(',')
'{} and {}'.format(1, 'x')
'{0}{1}{0}'.format('a', 'b')
'{name}!'.format(name='x')
'{{}}'.format()
'{:.2f}'.format(3.14159)
'{:5}|{:<5}|{:>5}|{:^5}'.format('a', 'b', 'c', 'd')
'{:5}|{:<5}|{:>5}|{:^5}'.format(1, 2, 3, 4)
'{:05d}'.format(42)
'{:+d}'.format(42)
'{:,}'.format(1234567)
'{:x} {:X} {:o} {:b} {:#x}'.format(255, 255, 8, 5, 255)
'{:*^9}'.format('mid')
'{:.3}'.format('abcdef')
'{:%}'.format(0.25)
'{:e}'.format(12345.678)
'{:g}'.format(0.00001234)
'{}'.format(1.0)
'{}'.format(none)
'{}'.format([1, 'a'])
'{!r}'.format('a')
'{0[a]} {0[b]}'.format(d)
'{}'.format()
'{:d}'.format('x')
'{'.format(1)
'%s and %s' % (1, 'x')
'%s' % 'x'
'%d items' % 3
'%05.1f|%-6s|%6s|%+d' % (3.14159, 'ab', 'cd', 5)
'%x %X %o %e' % (255, 255, 8, 1.5)
'%%' % ()
'%s' % (1, 2)
'%s %s' % (1,)
'%d' % 'x'
'%(a)s-%(b)s' % d
'%r' % 'x'
'%c' % 65
'%s' % none
'%s' % [1]
'%s of %s' | format(1, 2)
'%(x)s' | format(x=5)
'abc'.isalpha()
'ab1'.isalpha()
'12'.isdigit()
''.isdigit()
'ab1'.isalnum()
' '.isspace()
'AB'.isupper()
'aB'.islower()
'a'.center(5)
'ab'.center(5, '*')
'a'.ljust(3)
'a'.rjust(3, '.')
'-7'.zfill(4)
'abc' | center(8)
'a'.nope
'a'.nope()
'a'['upper']()
'abc'.__class__
1 == 1.0
1 == true
'1' == 1
none == false
[1, 2] == [1, 2]
[1, 2] == (1, 2)
1 < 2 < 3
1 < 3 < 2
1 < 2 > 0
'a' < 'b'
'B' < 'a'
[1, 2] < [1, 3]
[1] < [1, 0]
1 < 'a'
none < 1
1 != 1
2 >= 2
1 in [1, 2]
1.0 in [1, 2]
'a' in 'abc'
'' in 'abc'
1 in 'abc'
'a' not in 'abc'
1 in none
not 1 in [1]
not true
not not 'x'
1 and 2
0 and 2
0 or 'x'
'' or none
1 or missing.x
0 and missing.x
1 if true else 2
1 if false else 2
1 if false
(1 if false) is defined
1 if true
'a' if no else 'b' if no else 'c'
1 if 0 else 2 if 1 else 3
not 1 if 1 else 2
n is defined
missing is defined
missing is not defined
missing is undefined
d.x is defined
d.a is defined
nil is none
nil is not none
missing is none
s is string
n is string
missing is string
n is number
f is number
t is number
t is integer
n is integer
f is integer
f is float
n is float
t is boolean
n is boolean
t is true
no is false
1 is true
t is sameas true
d is mapping
l is mapping
l is sequence
s is sequence
d is sequence
n is sequence
missing is sequence
d.items() is sequence
l is iterable
s is iterable
n is iterable
none is iterable
missing is iterable
(l | map('string')) is iterable
(l | map('string')) is sequence
range is callable
n is callable
3 is odd
4 is even
6 is divisibleby 3
6 is divisibleby(4)
'a' is lower
'A' is upper
'1' is lower
1 is eq 1
1 is equalto 2
1 is ne 2
1 is in [1, 2]
1 is not in [1, 2]
5 is gt 3
5 is lessthan 3
5 is ge(5)
'upper' is filter
'nope' is filter
'odd' is test
1 is nope
1 | nope
false and 1 | upper
l | length
l | first
l | last
[] | first
[] | last
[] | first is defined
'' | first
d | first
none | first
l | sum
[1, 2.5] | sum
people | sum(attribute='age')
l | sum(start=10)
l | min
l | max
[] | min
words | min
words | max(case_sensitive=true)
people | max(attribute='age')
l | sort
l | sort(reverse=true)
words | sort
words | sort(case_sensitive=true)
people | sort(attribute='name') | map(attribute='name') | list
people | sort(attribute='age,name') | map(attribute='name') | list
people | sort(attribute='home.city') | list
[1, 'a'] | sort
l | reverse | list
(1, 2) | reverse | list
words | unique | list
words | unique(case_sensitive=true) | list
[1, 1.0, true, 2] | unique | list
d | dictsort
d | dictsort(true)
{'a': 2, 'b': 1} | dictsort(by='value')
{'a': 2, 'b': 1} | dictsort(reverse=true)
d | items | list
missing | items | list
l | items | list
l | list
s | list | length
d.items() | map('first') | list
l | map('string') | list
words | map('upper') | join(' ')
words | map('replace', 'p', 'P') | list
people | map(attribute='name') | list
people | map(attribute='home.city') | list
people | map(attribute='home.city', default='?') | list
people | map(attribute='tags.0', default='-') | list
nested | map('first') | list
nested | map(attribute=0) | list
nested | map('length') | sum
none | map('upper') | list
missing | map('upper') | list
l | select('odd') | list
l | select('gt', 1) | list
l | select('>', 1) | list
[0, 1, '', 'a', none] | select | list
[0, 1, '', 'a', none] | reject | list
l | reject('odd') | list
l | select('in', [1, 2]) | list
people | selectattr('tags') | map(attribute='name') | list
people | selectattr('age', 'equalto', 30) | map(attribute='name') | list
people | selectattr('age', '==', 25) | map(attribute='name') | list
people | selectattr('tags', 'defined') | list | length
people | rejectattr('tags', 'defined') | map(attribute='name') | list
people | rejectattr('age', 'gt', 26) | map(attribute='name') | list
people | selectattr('home.city', 'eq', 'Ulm') | first
l | select('nope') | list
l | selectattr | list
l | select('odd') | length
(l | select('odd') | list) | length
'yes' if l | select('gt', 10) else 'no'
'yes' if l | select('gt', 10) | list else 'no'
[1, 2, 3, 4, 5] | batch(2) | list
[1, 2, 3, 4, 5] | batch(2, 'x') | list
[1, 2, 3, 4, 5] | slice(3) | list
[1, 2, 3, 4, 5] | slice(3, 'x') | list
range(3)
range(3) | list
range(1, 10, 3) | list
range(5, 0, -2) | list
range(0) | list
range(3)[1]
range(10)[2:5] | list
range(3) | length
range(1000000)
range(1, 2, 0)
2 in range(3)
dict(a=1, b=2)
dict({'a': 1}, b=2)
dict([('a', 1)])
namespace(a=1).a
namespace(a=1).b
namespace(a=1).b is defined
'42' | int
' 42 ' | int
'4.7' | int
'x' | int
'x' | int(5)
'x' | int(default=none)
'ff' | int(0, 16)
'0xff' | int(0, 16)
'1_000' | int
4.7 | int
-4.7 | int
true | int
none | int
missing | int
'1.5' | float
'x' | float
'x' | float(1)
'1e3' | float
3 | float
'inf' | float
2.5 | round
3.5 | round
2.675 | round(2)
2.567 | round(1)
2.1 | round(0, 'ceil')
2.9 | round(method='floor')
-2.5 | round
7 | round
1234.5 | round(-2)
'x' | round
-5 | abs
5.5 | abs
-5.5|abs
'x' | abs
n | string
n | string | length
none | string
missing | string
1.0 | string
'<a href="x">&\'' | e
'<b>' | escape
'<b>' | safe
'<b>' | forceescape
s | tojson
u | tojson
u | tojson(ensure_ascii=true)
'a"b\\c\n\t\x00\x1f\x7f/' | tojson
l | tojson
d | tojson
people | tojson
people | tojson(indent=2)
[] | tojson(indent=2)
{'a': [], 'b': {}} | tojson(indent=4)
d | tojson(sort_keys=true)
{'b': 1, 'a': 2} | tojson(separators=(',', ':'))
{'b': 1, 'a': 2} | tojson(indent=0)
{'b': 1} | tojson(indent='--')
{1: 'a', none: 'b', true: 'c', 1.5: 'd'} | tojson
(1, 2) | tojson
1.0 | tojson
1e20 | tojson
none | tojson
true | tojson
missing | tojson
[missing] | tojson
range(3) | tojson
'inf' | float | tojson
'a\nb\n\nc' | indent
'a\nb\n\nc' | indent(2)
'a\nb\n\nc' | indent(2, true)
'a\nb\n\nc\n' | indent(2, blank=true)
'a\nb' | indent('> ')
'a\nb' | indent(width=1, first=True)
'' | indent(3, true)
n | indent
l | indent
missing | indent
nil | indent
strftime_now('%d %b %Y')
strftime_now('%Y-%m-%d')
strftime_now('%H:%M')
raise_exception('Stop: ' + s)
raise_exception(5)
s(1)
1()
nope(1)
upper('x')
s.upper(1)
s.replace('a')
s | replace('a')
s | upper(1)
l | join(',', 'a', 'b')
l | sort(nope=1)
people[0].home.city
people[-1]['tags']
people[0]['tags'][1]
people[3].name
people[3]
people | length
(people | first).name
(people | last).age + 1
people[0].name[0] ~ people[1].name[-1]
[x for x in l]
l[0
{'a' 1}
a b
1 +
'unclosed
1 2
x is
| upper
d | attr('a')
'<' | safe + '<'
'<' + '<' | safe
('<' | safe) ~ '<' + '<'
('<' | e) + ('<' | e)
'<' | e | e
'<' | forceescape | forceescape
('<' | safe) * 2 + '<'
('a<b' | safe).split('<') | join('<')
('<' | safe).join(['<', '>' | safe])
('a' | safe).replace('a', '<') + '<'
('x' | safe) | replace('x', '<')
('a' | safe).upper() + '<'
('a' | safe | upper) + '<'
('a' | safe | trim) + '<'
('ab' | safe)[0] + '<'
['<' | safe, '<']
('<' | safe) is escaped
'<' is escaped
('<%s>' | safe) % '<'
('{}' | safe).format('<')
('%s' | safe) | format('<')
('<a' | safe) | list
('<a' | safe) | first + '<'
('<a' | safe) | reverse + '<'
'x' % missing
(1, 2).copy()
(1, 2).index(2)
l.copy()
missing | reverse | list
[missing, missing] | sort
{'a': missing, 'b': missing} | dictsort(by='value')
u | wordcount
'x' % 1
'ßa ß' | title
('<' | safe | string) + '<'
('<' | safe) == '<'
('<' | safe) | tojson
('<' | safe | title) + '<'
loop
[1, [2, (3, {'a': none})]]
[[]]
[1.0, -0.0, 1e300]
{'a': 'b'}['a']
{'a': 'b'}.a
[1, 2][0]
(1, 2)[1]
'abc'[1]
'abc'[1:][0]
(s | upper)[0]
s.upper().lower().title()
'a' 'b' | upper
-l[0]
- 3 | abs
+5
--5
not -1
1 in [1] in [[1]]
1 == 1 == 1
(1, 'a') in [(1, 'a')]
[1, 2] in [[1, 2]]
{'x': 1}.x + 1
s[n:]
s[:n]
s[n]
s[f]
[s, n, f, t, nil]
d.a.b.c
nil.x
nil['x']
nil.x.y
n.x
n.x.y
l.x
l.x.y
t.x
s.x.y
range(2).x
'%s' % missing
'a,b' .split(',') [1]
words | map('length') | list
words | map('first') | join
words | select('string') | list | length
'x' * 3 ~ 'y'
1 - 1 - 1
2 * 3 % 4
8 / 2 / 2
1 if missing else 2
(none, 1) | first
d.keys() | sort
d.values() | select('none') | list
"a" in ["a", "b"] and "b" in ["a", "b"]
'ab' in ['abc']
l is sameas l
[] is sameas []
'x' is in 'xyz'
people | map(attribute='nope') | list
people | map(attribute='nope') | map('default', 0) | list
'a b c' | wordcount
"\u4f60\u597d"
'\d'
"\
"
(1, 2,) | length
{'a': 1,}.a
{'a': 1, 'a': 2}
s|upper|lower|length
s | default(missing)
'ÀÉ'.lower() ~ 'àé'.upper()
'ǆ'.title() ~ 'ĳ'.capitalize()
'Σ'.lower()
'١٢'.isdigit()
1.5 | int + 1
7 | string ~ 8
dict(a=1).get('a')
dict(a=1) | tojson
"%.2f" | format(1.005)
"%.3g" % 1234.5
'{:>8.2f}'.format(3.14159)
'{:<08}'.format(5)
'{:08.3f}'.format(-3.14159)
'{:_^7}'.format(1)
'{a.b}'.format(a={'b': 1})
'{a[b]}'.format(a={'b': 1})
'{1}'.format(1)
'{x}'.format(y=1)
0.1
1/3
2/3
100/3
1e-5
123456.789e3
3.0
1e5
12345678.9
""".strip("\n").split("\n")

# whole templates
WHOLE = [
    "{% for x in l %}{{ x }}{% endfor %}",
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }},{% endfor %}",
    "{% for x in l %}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }}|{% endfor %}",
    "{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is undefined }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}",
    "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}",
    "{% for x in [] %}x{% else %}none{% endfor %}",
    "{% for x in missing %}x{% else %}none{% endfor %}",
    "{% for x in none %}x{% endfor %}",
    "{% for x in 5 %}x{% endfor %}",
    "{% for x in l if x > 1 %}{{ x }}{{ loop.index }}/{{ loop.length }};{% else %}no{% endfor %}",
    "{% for x in l if x > 9 %}{{ x }}{% else %}no{% endfor %}",
    "{% for x in l if loop.index > 1 %}{{ x }}{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d | dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in d %}{{ k }}{% endfor %}",
    "{% for c in 'a日b' %}[{{ c }}]{% endfor %}",
    "{% for a, b in nested %}{{ a }}{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% else %}e{% endfor %}",
    "{% for x in [1, 2] %}{% for y in [1, 2] %}{% if y == 2 %}{% break %}{% endif %}{{ x }}{{ y }}{{ loop.first }} {% endfor %}{{ loop.last }};{% endfor %}",
    "{% break %}",
    "{% for x in l %}{{ x }}{% break %}{% else %}e{% endfor %}",
    "{% for x in l %}{{ x }}{% continue %}{% else %}e{% endfor %}",
    "{% for x in l %}{% if x == 2 %}{% break %}{% endif %}{% else %}e{% endfor %}",
    "{% macro m() %}a{% endmacro %}{% call m() %}{% endcall %}",
    "{% macro m() %}{{ varargs }}{% endmacro %}{{ m(x=1) }}",
    "{% macro m() %}{{ kwargs }}{% endmacro %}{{ m(1) }}",
    "{% macro m() %}{{ kwargs }}{% endmacro %}{{ m(x=1) }}",
    "{% for x in l %}{% set y = x %}{% endfor %}{{ y }}",
    "{% set y = 0 %}{% for x in l %}{{ y }}{% set y = y + x %}{{ y }},{% endfor %}{{ y }}",
    "{% set y = 0 %}{% if t %}{% set y = 1 %}{% endif %}{{ y }}",
    "{% set ns = namespace(y=0) %}{% for x in l %}{% set ns.y = ns.y + x %}{% endfor %}{{ ns.y }}",
    "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{{ ns['a'] }}",
    "{% set ns = namespace() %}{% set ns.x.y = 1 %}",
    "{% set d.x = 1 %}{{ d.x }}",
    "{% set nope.x = 1 %}",
    "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a, b = [1] %}",
    "{% set a, b = [1, 2, 3] %}",
    "{% set a = 1, 2 %}{{ a }}",
    "{% set (a, b) = (1, 2) %}{{ a }}{{ b }}",
    "{% set x %}a {{ n }} b{% endset %}[{{ x }}]{{ x is string }}",
    "{% set x | upper %}abc{% endset %}{{ x }}",
    "{% set x | replace('a', 'b') | upper %}abc{% endset %}{{ x }}",
    "{% set y = 1 %}{% set x %}{% set y = 2 %}{{ y }}{% endset %}{{ x }}{{ y }}",
    "{% filter upper %}abc{{ s }}{% endfilter %}",
    "{% filter trim | upper %}  abc {% endfilter %}",
    "{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% with a = 1 %}{% with a = 2, b = a %}{{ b }}{% endwith %}{% endwith %}",
    "{% if z %}a{% elif e %}b{% elif n %}c{% else %}d{% endif %}",
    "{% if z %}a{% elif e %}b{% else %}d{% endif %}",
    "{% if missing %}a{% endif %}b",
    "{% if not missing and l %}a{% endif %}",
    "{% if l, %}a{% endif %}",
    "{% macro m(a, b=2) %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=5, a=4) }}{{ m() }}",
    "{% macro m(a) %}{{ a is defined }}{% endmacro %}{{ m() }}{{ m(1) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(q=2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(1) }}",
    "{% macro m(n) %}{% if n > 0 %}{{ n }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}",
    "{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{% set x = 2 %}{{ m() }}",
    "{% macro m() %}{{ y }}{% endmacro %}{% for y in l %}{{ m() }}{% endfor %}",
    "{% macro m() %}{% set s = 'in' %}{{ s }}{% endmacro %}{{ m() }}{{ s }}",
    "{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% macro m() %} a {% endmacro %}{{ m() | trim }}{{ m().strip() ~ '!' }}{{ m() is string }}",
    "{% macro m() %}({{ caller() }}){% endmacro %}{% call m() %}in{% endcall %}",
    "{% macro m() %}{% for x in l %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(y) m() %}[{{ y }}]{% endcall %}",
    "{% macro m(a) %}{{ a }}{{ caller is defined }}{% endmacro %}{{ m(1) }}",
    "{{ m(1) }}{% macro m(a) %}{{ a }}{% endmacro %}",
    "{% generation %}abc{{ n }}{% endgeneration %}",
    "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
    "{% raw %}{{ x }}{% if %}{% endraw %}",
    " {%- raw -%} {{ x }} {%- endraw -%} y",
    "  {% raw %}\n a {% endraw %}\nb",
    "a{# comment #}b",
    "a {#- comment -#} b",
    "a\n{# comment #}\nb",
    "a\n   {# comment #}\nb",
    "a {# unclosed",
    "a\n  {% if t %}\n  b\n  {% endif %}\nc",
    "a\n  {%+ if t %}\n  b\n  {%+ endif +%}\nc",
    "a\n  {%- if t -%}\n  b\n  {%- endif -%}\nc",
    "a\n  {{ n }}\n  b",
    "a\n  {{- n -}}\n  b",
    "  {% if t %}x{% endif %}",
    "x  {% if t %}y{% endif %}  z",
    "{% if t %}\n\nx{% endif %}\n\n",
    "x\n",
    "x\n\n",
    "x\r\ny\rz\r\n",
    "{{ 'a\r\nb' }}",
    "{{ n }}\n",
    "{% set x = 1 %}\n{{ x }}\n{% set x = 2 %}  \n{{ x }}",
    "{{ {'a': {'b': 1}} }}",
    "{{ {'a': {}} }}}}",
    "{{ '}}' }}",
    "{% if '%}' %}x{% endif %}",
    "{{ '{{' }}{{ \"{%\" }}",
    "{{}}",
    "{% %}",
    "{% nope %}",
    "{% if t %}",
    "{% endif %}",
    "{% for x in l %}{% endif %}",
    "{% else %}",
    "{{ n ",
    "{% if t",
    "{{ (1 }}",
    "{{ 1) }}",
    "{{ $ }}",
    "{% set 1 = 2 %}",
    "{% set true = 2 %}",
    "{% for x of l %}{% endfor %}",
    "{% macro m(a=1, b) %}{% endmacro %}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% do l.append(1) %}",
    "{{ raise_exception('x') if n > 5 else 'fine' }}",
    "{% if n > 5 %}{{ raise_exception('Roles must alternate: ' ~ n) }}{% endif %}",
    "{{ 'a' }}{{ 1 }}{{ none }}{{ missing }}|",
    "{{ 1, 2 }}",
    "{{ 'x', }}",
    "{{-1}}",
    "{{- 'a' -}} b {{+ 1 }}",
    "{%- set x = 'a' -%}  {{- x -}}  \n",
    "{% for m in people %}{{ m.name }}{{ ', ' if not loop.last }}{% endfor %}",
    "{% for m in people %}{{- m['name'] + ': ' + m.age | string }}\n{% endfor %}",
    "{% set x = people | selectattr('age', 'equalto', 30) | list %}{{ x | length }}{{ x[-1].name }}",
    "{% set it = l | map('string') %}{{ it | list }}{{ it | list }}",
    "{% set it = l | map('string') %}{{ it | first }}{{ it | join }}",
    "{% for m in people[::-1] %}{{ loop.index0 }}{{ m.name }}{% endfor %}",
    "{% for m in people[1:] %}{{ m.name }}{% endfor %}",
    "{% for i in range(n, 0, -3) %}{{ i }}{% endfor %}",
    "{% set loop_messages = people %}{% for m in loop_messages %}{% set c = m.name %}{% if loop.index0 == 0 %}{% set c = '<' + c %}{% endif %}{{ c }}{% endfor %}",
    "{% if tools is defined and tools is not none %}a{% else %}b{% endif %}",
    "{% if (a is not defined) or b is defined %}x{% endif %}",
    "{% for x in l recursive %}{{ x }}{% endfor %}" if False else "{% for x in l %}{{ x }}{% endfor %}!",
    "{% set x = 'a' if t else 'b' %}{{ x }}",
    "{% set x = {'a': 1} %}{% set x = dict(x, b=2) %}{{ x }}",
    "{% set x = [] %}{% for y in l %}{% set x = x + [y] %}{% endfor %}{{ x }}",
    "{% set ns = namespace(x=[]) %}{% for y in l %}{% set ns.x = ns.x + [y * 2] %}{% endfor %}{{ ns.x }}",
    "{{ '\\n' }}{{ '\\\\n' }}",
    "a{% if t -%}   b   {%- endif %}c",
    "{% if t %}a{% endif %}\n{% if t %}b{% endif %}\n",
    "{%- if t %}\n    {{- 'x' }}\n{%- endif %}\n{{- 'y' }}",
    "\n\n{% if t %}x{% endif %}",
    "\u3000{% if t %}x{% endif %}\u3000{%- if t %}y{% endif %}",
    "{{ s }}{# {{ s }} #}{{ n }}",
    "{#- a -#}\n\n{#- b -#}x",
    "{% set x = 1 -%}\n\n  {{ x }}",
    "{{ d['a'] if 'a' in d else '' }}{{ d['q'] if 'q' in d else 'none' }}",
    "{% for x in l -%}\n  {{ x }}\n{%- endfor %}",
    "{% for x in l %}\n  {{ x }}\n{% endfor %}\n",
    "{%set x=1%}{{x}}{%if x==1%}y{%endif%}",
]

EXPRESSIONS = ["{{ " + line + " }}" for line in PRINTED] + WHOLE

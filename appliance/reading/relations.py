"""What a passage can say of something, in how many ways, and how it can be asked for.

The table is text: a relation begins with `name | kinds of entity | kinds of value` and goes on with a line per template.
`=` is the wording of the answer; `+` says it and `?` asks for it in training; `*` says it and `!` asks for it in the
exam alone. `{e}` is the entity, `{v}` the value. A sentence's first letter is made a capital, its full stop or question
mark is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from appliance.reading import words
from appliance.reading.values import Split, split_of

_TABLE: Final = """
opens | place | time
= {e} opens at {v}
+ {e} opens at {v}
+ {e} opens its doors at {v}
+ {e} is open from {v}
+ the doors of {e} open at {v}
+ from {v} on, visitors can enter {e}
+ at {v} the staff open {e}
+ visitors find {e} open from {v}
+ {e} lets visitors in at {v}
+ it is {v} when {e} opens
? when does {e} open
? what time does {e} open
? at what time does {e} open
? from when is {e} open
? what are the opening hours of {e}
? tell me when {e} opens
* every morning {e} opens at {v}
* {e} opens for the public at {v}
! at which hour does {e} open
! do you know when {e} opens

closes | place | time
= {e} closes at {v}
+ {e} closes at {v}
+ {e} shuts its doors at {v}
+ {e} is closed from {v}
+ the doors of {e} close at {v}
+ at {v} the staff close {e}
+ nobody can enter {e} after {v}
+ {e} closes its doors at {v}
+ it is {v} when {e} closes
? when does {e} close
? what time does {e} close
? at what time does {e} close
? until when is {e} open
? tell me when {e} closes
* every evening {e} closes at {v}
* {e} closes for the night at {v}
! at which hour does {e} close
! do you know when {e} closes

starts | event | time
= {e} starts at {v}
+ {e} starts at {v}
+ {e} begins at {v}
+ the start of {e} is at {v}
+ {e} will start at {v}
+ everybody should be at {e} by {v}, when it begins
+ {e} is set to begin at {v}
+ it is {v} when {e} starts
+ they begin {e} at {v}
? when does {e} start
? what time does {e} begin
? at what time does {e} start
? when is the start of {e}
? tell me when {e} begins
* {e} is due to start at {v}
* at {v} {e} begins
! at which hour does {e} start
! do you know when {e} begins

ends | event | time
= {e} ends at {v}
+ {e} ends at {v}
+ {e} finishes at {v}
+ the end of {e} is at {v}
+ {e} will be over at {v}
+ {e} goes on until {v}
+ it is {v} when {e} ends
+ they end {e} at {v}
? when does {e} end
? what time does {e} finish
? at what time does {e} end
? when is {e} over
? tell me when {e} ends
? until when does {e} go on
* {e} is due to end at {v}
* at {v} {e} finishes
! at which hour does {e} end
! do you know when {e} finishes

held-on | event | date weekday
= {e} takes place on {v}
+ {e} takes place on {v}
+ {e} is on {v}
+ {e} will be held on {v}
+ the date of {e} is {v}
+ on {v} {e} takes place
+ the day of {e} is {v}
+ people meet for {e} on {v}
+ {e} has been set for {v}
? when does {e} take place
? on which day is {e}
? what is the date of {e}
? when is {e}
? when will {e} be held
? tell me when {e} takes place
? tell me on which day {e} is
* {e} is planned for {v}
* they hold {e} on {v}
! on what day will {e} take place
! which day is {e} on

held-in | event | spot town
= {e} takes place in {v}
+ {e} takes place in {v}
+ {e} is held in {v}
+ {e} will be in {v}
+ the place for {e} is {v}
+ everybody goes to {v} for {e}
+ {v} is the place for {e}
+ people meet in {v} for {e}
+ {e} has been moved to {v}
? where does {e} take place
? where is {e} held
? where will {e} be
? in which place is {e}
? what is the place for {e}
? tell me where {e} takes place
? where is {e}
* {e} happens in {v}
* they hold {e} in {v}
! where do they hold {e}
! where exactly does {e} take place

led-by | event project place | person
= {e} is led by {v}
+ {e} is led by {v}
+ {v} leads {e}
+ the head of {e} is {v}
+ {v} is the head of {e}
+ {v} is in charge of {e}
+ {e} is run by {v}
+ {e} is headed by {v}
+ {v} has taken over {e}
+ it is {v} who leads {e}
+ {e} is under {v}
? who leads {e}
? who is in charge of {e}
? who is the head of {e}
? by whom is {e} led
? who runs {e}
? name the head of {e}
? tell me who leads {e}
? who heads {e}
* {v} has led {e} for years
* the person in charge of {e} is {v}
! who is leading {e}
! which person leads {e}

repaired-by | device vessel | person organisation
= {e} was repaired by {v}
+ {e} was repaired by {v}
+ {v} repaired {e}
+ the repair of {e} was done by {v}
+ {v} has repaired {e}
+ it was {v} who repaired {e}
+ {e} has been repaired by {v}
+ {v} was the one who repaired {e}
+ {e} was mended by {v}
? who repaired {e}
? who has repaired {e}
? by whom was {e} repaired
? who did the repair of {e}
? name who repaired {e}
? tell me who repaired {e}
? who mended {e}
* last week {v} repaired {e}
* {e} was quickly repaired by {v}
! do you know who repaired {e}
! who was it that repaired {e}

installed-by | device | person organisation
= {e} was installed by {v}
+ {e} was installed by {v}
+ {v} installed {e}
+ the installation of {e} was done by {v}
+ {v} put in {e}
+ {e} has been installed by {v}
+ it was {v} who installed {e}
+ {e} was put in by {v}
? who installed {e}
? by whom was {e} installed
? who put in {e}
? who did the installation of {e}
? tell me who installed {e}
? who has installed {e}
* a few years ago {v} installed {e}
* {e} had been installed by {v}
! do you know who installed {e}
! who was it that installed {e}

inspected-on | device vessel place | date
= {e} was inspected on {v}
+ {e} was inspected on {v}
+ on {v} somebody inspected {e}
+ the last inspection of {e} was on {v}
+ inspectors checked {e} on {v}
+ they inspected {e} on {v}
+ {e} has been inspected on {v}
+ it was on {v} that {e} was inspected
? when was {e} inspected
? when was the last inspection of {e}
? on which day was {e} inspected
? when did inspectors check {e}
? tell me when {e} was inspected
? what was the day of the inspection of {e}
* the inspection of {e} happened on {v}
* {e} passed its inspection on {v}
! on what date was {e} inspected
! do you know when {e} was inspected

built-in | place vessel device | year
= {e} was built in {v}
+ {e} was built in {v}
+ {e} dates from {v}
+ in {v} they built {e}
+ the building of {e} was finished in {v}
+ {e} has stood since {v}, when it was built
+ {e} was finished in {v}
+ they built {e} in {v}
+ {e} has been there since it was built in {v}
? when was {e} built
? in which year was {e} built
? in what year was {e} built
? from which year is {e}
? how old is {e}
? tell me when {e} was built
? tell me in which year {e} was built
* it was in {v} that {e} was built
* {e} was first built in {v}
! what year was {e} built in
! do you know when {e} was built

built-by | place vessel | person organisation
= {e} was built by {v}
+ {e} was built by {v}
+ {v} built {e}
+ the builder of {e} was {v}
+ it was {v} who built {e}
+ {e} is the work of {v}
+ {e} has been built by {v}
+ {v} has built {e}
? who built {e}
? by whom was {e} built
? who was the builder of {e}
? name the builder of {e}
? tell me who built {e}
? who has built {e}
* long ago {v} built {e}
* {e} had been built by {v}
! do you know who built {e}
! who was it that built {e}

located | place device document | spot
= {e} is in {v}
+ {e} is in {v}
+ {e} can be found in {v}
+ you find {e} in {v}
+ {e} stands in {v}
+ go to {v} to find {e}
+ {v} is where {e} is
+ {e} has been put in {v}
+ {e} is to be found in {v}
? where is {e}
? where can I find {e}
? where do I find {e}
? in which place is {e}
? where does {e} stand
? tell me where {e} is
* look for {e} in {v}
* these days {e} is in {v}
! where should I look for {e}
! do you know where {e} is

kept | document animal | spot
= {e} is kept in {v}
+ {e} is kept in {v}
+ they keep {e} in {v}
+ {v} is where they keep {e}
+ {e} has its place in {v}
+ {e} is stored in {v}
+ look in {v} for {e}
+ you will see {e} in {v}
? where is {e} kept
? where do they keep {e}
? in which place is {e} kept
? where can I find {e}
? tell me where {e} is kept
? where do I find {e}
* at night {e} is kept in {v}
* {e} is always kept in {v}
! do you know where {e} is kept
! where exactly is {e} kept

code | device place document | code
= the code for {e} is {v}
+ the code for {e} is {v}
+ {e} has the code {v}
+ {v} is the code for {e}
+ the code of {e} is {v}
+ {e} opens with the code {v}
+ use the code {v} for {e}
+ {e} wants the code {v}
+ with {v} you open {e}
+ {v} opens {e}
? what is the code for {e}
? which code does {e} have
? which code opens {e}
? what code do I need for {e}
? give me the code for {e}
? tell me which code {e} has
? tell me what the code for {e} is
* to open {e}, enter the code {v}
* for {e} you need the code {v}
! what is the right code for {e}
! which code do I enter for {e}

costs | product device document | money
= {e} costs {v}
+ {e} costs {v}
+ the price of {e} is {v}
+ you pay {v} for {e}
+ {e} is sold for {v}
+ {v} is the price of {e}
+ {e} is yours for {v}
+ they sell {e} for {v}
+ {e} has a price of {v}
? how much does {e} cost
? what does {e} cost
? what is the price of {e}
? how much is {e}
? for how much is {e} sold
? tell me how much {e} costs
? how much do they ask for {e}
* they ask {v} for {e}, which is what it costs
* in the shop {e} costs {v}
! how much do I pay for {e}
! what must I pay for {e}

weighs | product device animal vessel | weight
= {e} weighs {v}
+ {e} weighs {v}
+ the weight of {e} is {v}
+ {e} has a weight of {v}
+ with a weight of {v}, {e} is heavy
+ {e} comes to {v} in weight
+ {v} is the weight of {e}
+ they say that {e} weighs {v}
? how much does {e} weigh
? what does {e} weigh
? what is the weight of {e}
? how heavy is {e}
? tell me how much {e} weighs
? which weight does {e} have
* on the scales {e} weighs {v}
* {v} is what {e} weighs
! do you know how much {e} weighs
! what weight does {e} have

length | vessel place product | length
= {e} is {v} long
+ {e} is {v} long
+ the length of {e} is {v}
+ {e} has a length of {v}
+ {e} measures {v} in length
+ {e} has {v} from one end to the other
+ {e} comes to {v} in length
+ they say that {e} is {v} long
? how long is {e}
? what is the length of {e}
? what length does {e} have
? how many metres long is {e}
? tell me how long {e} is
? how long does {e} measure
* from end to end {e} is {v} long
* {v} is the length of {e}
! do you know how long {e} is
! what does {e} measure in length

seats | place vessel event | count
= {e} has room for {v} people
+ {e} has room for {v} people
+ {v} people fit into {e}
+ {e} can take {v} people
+ there are {v} seats in {e}
+ {e} has {v} seats
+ {e} holds {v} people
+ {v} people find room in {e}
+ {e} is made for {v} people
? how many people fit into {e}
? how many seats does {e} have
? for how many people does {e} have room
? how many people can {e} take
? tell me how many people fit into {e}
? what number of people can {e} take
* as many as {v} people fit into {e}
* at most {v} people can be in {e}
! how many people have room in {e}
! how many seats are there in {e}

lives | person animal | town
= {e} lives in {v}
+ {e} lives in {v}
+ {e} has lived in {v} for years
+ the home of {e} is in {v}
+ {e} has a house in {v}
+ {e} moved to {v} and lives there
+ {e} has a home in {v}
+ {v} is where {e} lives
+ {e} has moved to {v}
? where does {e} live
? in which town does {e} live
? where is the home of {e}
? which town does {e} live in
? tell me where {e} lives
* these days {e} lives in {v}
* in {v} lives {e}
! do you know where {e} lives
! in what town does {e} live

born-in | person animal | town
= {e} was born in {v}
+ {e} was born in {v}
+ {v} is where {e} was born
+ the birthplace of {e} is {v}
+ {e} comes from {v}
+ {e} comes from {v}, the place of birth
? where was {e} born
? in which town was {e} born
? what is the birthplace of {e}
? where does {e} come from
? tell me where {e} was born
* in {v} {e} was born
* it was in {v} that {e} was born
! do you know where {e} was born
! in what town was {e} born

born-on | person | date year
= {e} was born on {v}
+ {e} was born on {v}
+ the birthday of {e} is {v}
+ {v} is when {e} was born
+ the date of birth of {e} is {v}
+ {e} came into the world on {v}
? when was {e} born
? what is the birthday of {e}
? on which day was {e} born
? what is the date of birth of {e}
? tell me when {e} was born
* it was on {v} that {e} was born
* on {v} {e} was born
! do you know when {e} was born
! on what date was {e} born

works-for | person | organisation
= {e} works for {v}
+ {e} works for {v}
+ {e} is employed by {v}
+ the employer of {e} is {v}
+ {e} has a job at {v}
+ {v} employs {e}
+ {e} has a job with {v}
+ {v} has hired {e}
+ {v} pays {e} for work
? who does {e} work for
? for whom does {e} work
? which company employs {e}
? what is the employer of {e}
? where does {e} work
? tell me who {e} works for
* these days {e} works for {v}
* {e} has worked for {v} for years
! which company does {e} work for
! do you know who {e} works for

phone | person place | phone
= the phone number of {e} is {v}
+ the phone number of {e} is {v}
+ {e} can be reached at {v}
+ call {v} to reach {e}
+ {e} has the phone number {v}
+ {v} is the phone number of {e}
+ you reach {e} at the number {v}
+ {e} answers the phone at {v}
+ the number of {e} is {v}
? what is the phone number of {e}
? which phone number does {e} have
? how can I reach {e}
? at which number can I call {e}
? give me the phone number of {e}
? tell me which phone number {e} has
? by which number do I reach {e}
* dial {v} to call {e}
* for {e}, call the number {v}
! which number do I call for {e}
! what number do I dial to reach {e}

married | person | person
= {e} is married to {v}
+ {e} is married to {v}
+ {e} married {v}
+ {e} and {v} are married
+ the spouse of {e} is {v}
+ the husband or wife of {e} is {v}
+ {e} has married {v}
? who is {e} married to
? to whom is {e} married
? who is the spouse of {e}
? who did {e} marry
? tell me who {e} is married to
? who married {e}
* last year {e} married {v}
* {e} has been married to {v} for years
! whom did {e} marry
! do you know who {e} is married to

teacher | person | person
= {e} was taught by {v}
+ {e} was taught by {v}
+ {v} taught {e}
+ the teacher of {e} was {v}
+ {e} had {v} as a teacher
+ {e} learned from {v}
+ {e} has been taught by {v}
? who taught {e}
? by whom was {e} taught
? who was the teacher of {e}
? name the teacher of {e}
? tell me who taught {e}
? who has taught {e}
* for years {v} taught {e}
* it was {v} who taught {e}
! do you know who taught {e}
! who was it that taught {e}

wrote | document | person
= {e} was written by {v}
+ {e} was written by {v}
+ {v} wrote {e}
+ the author of {e} is {v}
+ {e} comes from the pen of {v}
+ {v} has written {e}
+ {e} is by {v}
? who wrote {e}
? by whom was {e} written
? who is the author of {e}
? name the author of {e}
? tell me who wrote {e}
? who has written {e}
* it was {v} who wrote {e}
* {v} sat down and wrote {e}
! do you know who wrote {e}
! who was it that wrote {e}

signed | document | person organisation
= {e} was signed by {v}
+ {e} was signed by {v}
+ {v} signed {e}
+ {e} carries the signature of {v}
+ {v} put a signature under {e}
+ {v} has signed {e}
+ {e} has the signature of {v}
+ {e} has been signed by {v}
? who signed {e}
? by whom was {e} signed
? whose signature does {e} carry
? name who signed {e}
? tell me who signed {e}
? whose signature is on {e}
* in the end {v} signed {e}
* it was {v} who signed {e}
! do you know who signed {e}
! who has signed {e}

expires | document product | date
= {e} expires on {v}
+ {e} expires on {v}
+ {e} is valid until {v}
+ the last day of {e} is {v}
+ {e} runs out on {v}
+ after {v} nobody can use {e}
? when does {e} expire
? until when is {e} valid
? when does {e} run out
? on which day does {e} expire
? tell me when {e} expires
? what is the last day of {e}
* on {v} {e} expires
* {e} will expire on {v}
! on what date does {e} expire
! do you know when {e} expires

pages | document | count
= {e} has {v} pages
+ {e} has {v} pages
+ there are {v} pages in {e}
+ {e} is {v} pages long
+ {v} pages make up {e}
? how many pages does {e} have
? how many pages are there in {e}
? how long is {e}
? what is the page count of {e}
? tell me how many pages {e} has
? how many pages are there to {e}
* all in all {e} has {v} pages
* in print {e} has {v} pages
! how many pages long is {e}
! how many pages are in {e}

departs | vessel | time
= {e} departs at {v}
+ {e} departs at {v}
+ {e} leaves the harbour at {v}
+ the departure of {e} is at {v}
+ at {v} {e} sets off
+ {e} leaves at {v}
+ {e} sets off at {v}
+ it is {v} when {e} departs
? when does {e} depart
? what time does {e} leave
? when does {e} leave the harbour
? when is the departure of {e}
? at what time does {e} set off
? tell me when {e} departs
* every day {e} departs at {v}
* {e} is due to depart at {v}
! at which hour does {e} depart
! do you know when {e} leaves

arrives | vessel | time
= {e} arrives at {v}
+ {e} arrives at {v}
+ {e} comes in at {v}
+ the arrival of {e} is at {v}
+ at {v} {e} reaches the harbour
+ {e} gets here at {v}
+ it is {v} when {e} arrives
? when does {e} arrive
? what time does {e} come in
? when is the arrival of {e}
? at what time does {e} arrive
? tell me when {e} arrives
* every day {e} arrives at {v}
* {e} is due to arrive at {v}
! at which hour does {e} arrive
! do you know when {e} comes in

sails-to | vessel | town
= {e} sails to {v}
+ {e} sails to {v}
+ {e} goes to {v}
+ the destination of {e} is {v}
+ {e} is on its way to {v}
+ {v} is the port that {e} sails to
? where does {e} sail
? where does {e} go
? what is the destination of {e}
? to which town does {e} sail
? tell me where {e} sails
? to which place does {e} sail
* today {e} sails to {v}
* {v} is where {e} sails
! where is {e} sailing
! do you know where {e} goes

colour | device product vessel place animal | colour
= {e} is {v}
+ {e} is {v}
+ the colour of {e} is {v}
+ {e} was painted {v}
+ {e} has a {v} colour
+ {e} has been painted {v}
+ they chose {v} as the colour of {e}
+ {e} comes in {v}
? what colour is {e}
? what is the colour of {e}
? which colour does {e} have
? what colour was {e} painted
? tell me what colour {e} is
? tell me which colour {e} has
* these days {e} is {v}
* {v} is the colour of {e}
! do you know what colour {e} is
! in which colour was {e} painted

made-of | product device place | material
= {e} is made of {v}
+ {e} is made of {v}
+ {e} consists of {v}
+ {v} is what {e} is made of
+ {e} is built from {v}
+ they made {e} of {v}
? what is {e} made of
? of what is {e} made
? what does {e} consist of
? which material is {e} made of
? tell me what {e} is made of
* all of {e} is made of {v}
* the makers of {e} used {v}
! what material is {e} made of
! do you know what {e} is made of

runs | device | version
= {e} runs version {v}
+ {e} runs version {v}
+ version {v} is installed on {e}
+ {e} has version {v}
+ the version on {e} is {v}
+ the version of {e} is {v}
? which version does {e} run
? what version is installed on {e}
? which version does {e} have
? what is the version on {e}
? tell me which version {e} runs
? tell me what version is installed on {e}
* at present {e} runs version {v}
* {e} was updated to version {v}
! which version is {e} running
! what version does {e} run

host | device project | host
= {e} is reachable at {v}
+ {e} is reachable at {v}
+ the address of {e} is {v}
+ {e} has the address {v}
+ {e} answers at {v}
+ you reach {e} at {v}
+ {v} leads to {e}
? at which address is {e} reachable
? what is the address of {e}
? which address does {e} have
? where does {e} answer
? tell me at which address {e} is reachable
? where on the network is {e}
* on the network {e} is reachable at {v}
* {v} is the address of {e}
! what address is {e} reachable at
! under which address can I reach {e}

temperature | device place | temperature
= the temperature of {e} is {v}
+ the temperature of {e} is {v}
+ {e} is kept at {v}
+ {e} has a temperature of {v}
+ it is {v} in {e}
+ they keep {e} at {v}
? what is the temperature of {e}
? at which temperature is {e} kept
? how warm is {e}
? what temperature does {e} have
? tell me how warm {e} is
? what temperature is {e} kept at
* at noon the temperature of {e} was {v}
* the thermometer of {e} shows {v}
! which temperature does {e} have
! how hot is {e}

lasts | event project | duration
= {e} lasts {v}
+ {e} lasts {v}
+ {e} takes {v}
+ the length of {e} is {v}
+ {e} goes on for {v}
+ it takes {v} to get through {e}
+ {v} is how long {e} lasts
? how long does {e} last
? how long does {e} take
? what is the length of {e}
? how long does {e} go on
? tell me how long {e} lasts
? how much time does {e} take
* all in all {e} lasts {v}
* {e} will last {v}
! for how long does {e} last
! do you know how long {e} takes

budget | project event | money
= the budget of {e} is {v}
+ the budget of {e} is {v}
+ {e} has a budget of {v}
+ there are {v} for {e} in the budget
+ {v} is the budget of {e}
+ {e} has {v} to spend
+ {e} may cost {v}
? what is the budget of {e}
? how much money does {e} have
? how big is the budget of {e}
? which budget does {e} have
? tell me how much money {e} has
? how much may {e} spend
* for {e} there is a budget of {v}
* they gave {e} a budget of {v}
! how large is the budget of {e}
! what budget does {e} have

paid-by | project event document | organisation person
= {e} is paid for by {v}
+ {e} is paid for by {v}
+ {v} pays for {e}
+ the money for {e} comes from {v}
+ {v} is the sponsor of {e}
+ the bill for {e} goes to {v}
? who pays for {e}
? by whom is {e} paid for
? where does the money for {e} come from
? who is the sponsor of {e}
? tell me who pays for {e}
? whose money pays for {e}
* these days {v} pays for {e}
* it is {v} who pays for {e}
! do you know who pays for {e}
! who is paying for {e}

belongs | animal device vessel place | person organisation
= {e} belongs to {v}
+ {e} belongs to {v}
+ the owner of {e} is {v}
+ {v} owns {e}
+ {e} is owned by {v}
+ {v} is the owner of {e}
+ {e} is the property of {v}
? who owns {e}
? to whom does {e} belong
? who is the owner of {e}
? who does {e} belong to
? name the owner of {e}
? tell me who owns {e}
? tell me whom {e} belongs to
* {v} bought {e} and owns it
* today {e} belongs to {v}
! whose is {e}
! do you know who owns {e}

age | person animal | count
= {e} is {v} years old
+ {e} is {v} years old
+ the age of {e} is {v} years
+ {e} turned {v} years old
+ {e} has reached the age of {v}
+ the age of {e} is {v}
+ {e} turned {v}, so old
? how old is {e}
? what is the age of {e}
? what age is {e}
? which age has {e} reached
? tell me how old {e} is
? at what age is {e}
* this year {e} is {v} years old
* at {v} years old, {e} is healthy
! do you know how old {e} is
! how many years old is {e}

stock | place organisation | count
= {e} has {v} boxes in stock
+ {e} has {v} boxes in stock
+ there are {v} boxes in {e}
+ {v} boxes are stored in {e}
+ {e} holds {v} boxes
+ {e} stores {v} boxes
+ {v} boxes are in the stock of {e}
? how many boxes does {e} have in stock
? how many boxes are in {e}
? how many boxes does {e} hold
? how many boxes are stored in {e}
? tell me how many boxes {e} has in stock
? how many boxes does {e} store
* at the last count {e} had {v} boxes
* {e} now holds {v} boxes
! how many boxes are there in {e}
! what number of boxes does {e} hold

founded | organisation project | year
= {e} was founded in {v}
+ {e} was founded in {v}
+ {e} has existed since {v}
+ in {v} {e} was founded
+ the founding year of {e} is {v}
+ they founded {e} in {v}
+ {e} exists since {v}
+ the founding of {e} was in {v}
? when was {e} founded
? in which year was {e} founded
? since when has {e} existed
? what is the founding year of {e}
? tell me when {e} was founded
? since which year does {e} exist
* it was in {v} that {e} was founded
* {e} started out in {v}, the year it was founded
! what year was {e} founded in
! do you know when {e} was founded

seat | organisation | town
= {e} is based in {v}
+ {e} is based in {v}
+ {e} has its seat in {v}
+ the headquarters of {e} are in {v}
+ {v} is the seat of {e}
+ the seat of {e} is in {v}
+ {v} is where {e} is based
? where is {e} based
? in which town is {e} based
? where are the headquarters of {e}
? what is the seat of {e}
? tell me where {e} is based
? where does {e} have its seat
* for years {e} has been based in {v}
* the company {e} is based in {v}
! in what town is {e} based
! do you know where {e} is based

sells | organisation | money
= {e} has a turnover of {v}
+ {e} has a turnover of {v}
+ the turnover of {e} is {v}
+ {e} turns over {v} a year
+ with a turnover of {v}, {e} is doing well
+ {e} sells for {v} a year
? what is the turnover of {e}
? which turnover does {e} have
? how much does {e} turn over
? how big is the turnover of {e}
? tell me which turnover {e} has
? how much does {e} sell in a year
* last year {e} had a turnover of {v}
* {v} is the turnover of {e}
! how large is the turnover of {e}
! what turnover does {e} have
"""

# `{a}` is an attribute such as `serial number`; any noun will do, so these teach to read words rather than wordings.
_ANSWER: Final = "the {a} of {e} is {v}"
_SAY: Final = """the {a} of {e} is {v}|{e} has the {a} {v}|for {e} the {a} is {v}|{v} is the {a} of {e}|as {a} of {e} they
chose {v}|the {a} for {e} is {v}|{e}: {a} {v}|the list gives {v} as the {a} of {e}|they say that the {a} of {e} is {v}"""
_SAY_EXAM: Final = "with {e} the {a} is {v}|the current {a} of {e} is {v}|the {a} that belongs to {e} is {v}"
_ASK: Final = """what is the {a} of {e}|which {a} does {e} have|tell me the {a} of {e}|give me the {a} for {e}|what {a} does
{e} have|what is the {a} for {e}|I need the {a} of {e}|please name the {a} of {e}"""
_ASK_EXAM: Final = """what is the current {a} of {e}|do you know the {a} of {e}|can you tell me the {a} of {e}|can you find
the {a} of {e}"""
_ASK_WHO: Final = "who is the {a} of {e}|who is the {a} for {e}"
ATTRIBUTE_ENTITIES: Final = [
    "place",
    "device",
    "event",
    "document",
    "project",
    "vessel",
    "animal",
    "product",
    "organisation",
    "person",
]


@dataclass(frozen=True)
class Relation:
    """One thing that can be said.

    Attributes:
        name: Its name; two facts of one name and entity contradict each other.
        entities: Kinds of entity that it can be said of.
        values: Kinds of value.
        answer: The wording of every answer.
        say, ask: Wordings in training.
        say_exam, ask_exam: Wordings that training never shows.
    """

    name: str
    entities: tuple[str, ...]
    values: tuple[str, ...]
    answer: str
    say: tuple[str, ...]
    ask: tuple[str, ...]
    say_exam: tuple[str, ...]
    ask_exam: tuple[str, ...]

    def says(self, split: Split) -> tuple[str, ...]:
        """Return the wordings of its statements in this half."""
        return self.say_exam if split is Split.EXAM else self.say

    def asks(self, split: Split) -> tuple[str, ...]:
        """Return the wordings of its questions in this half."""
        return self.ask_exam if split is Split.EXAM else self.ask


def draw_relation(random: Random, split: Split, entity: str = "") -> Relation:
    """Return a relation, of this kind of entity if one is named: one of the table or, one time in three, an attribute."""
    if random.random() < 1 / 3 and (not entity or entity in ATTRIBUTE_ENTITIES):
        return random.choice(_ATTRIBUTES[split])
    return random.choice(RELATIONS_OF[entity] if entity else RELATIONS)


def _parse(table: str) -> tuple[Relation, ...]:
    relations = []
    for block in table.strip().split("\n\n"):
        head, *lines = block.split("\n")
        name, entities, values = (part.strip() for part in head.split("|"))
        of = {mark: tuple(line[2:] for line in lines if line[0] == mark) for mark in "=+?*!"}
        (answer,) = of["="]
        relations.append(
            Relation(
                name,
                tuple(entities.split()),
                tuple(values.split()),
                answer,
                of["+"],
                of["?"],
                of["*"],
                of["!"],
            )
        )
    return tuple(relations)


def _attributes() -> dict[Split, tuple[Relation, ...]]:
    """Return the attributes of each half; those of the exam are nouns that no training question asks for."""
    halves: dict[Split, list[Relation]] = {split: [] for split in Split}
    for names, kind in _attribute_groups():
        for name in names:
            halves[split_of(f"attribute {name}")].append(_attribute(name, kind))
    return {split: tuple(found) for split, found in halves.items()}


def _attribute_groups() -> list[tuple[list[str], str]]:
    groups = []
    names = ""
    for line in words.ATTRIBUTES.strip().split("\n"):
        text, _, kind = line.partition(":")
        names += f" {text}"
        if kind:
            groups.append(([name.strip() for name in names.split(",")], kind.strip()))
            names = ""
    return groups


def _attribute(name: str, kind: str) -> Relation:
    asks = _ASK if kind != "person" else f"{_ASK}|{_ASK_WHO}"
    fill = [
        tuple(template.replace("{a}", name) for template in " ".join(text.split("\n")).split("|"))
        for text in (_SAY, asks, _SAY_EXAM, _ASK_EXAM)
    ]
    answer = _ANSWER.replace("{a}", name)
    return Relation(name, tuple(ATTRIBUTE_ENTITIES), (kind,), answer, *fill)


RELATIONS: Final = _parse(_TABLE)
RELATIONS_OF: Final = {
    kind: tuple(relation for relation in RELATIONS if kind in relation.entities)
    for kind in sorted(
        {kind for relation in RELATIONS for kind in relation.entities} | set(ATTRIBUTE_ENTITIES)
    )
}
_ATTRIBUTES: Final = _attributes()

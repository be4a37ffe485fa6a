/* handover.pml: a stream group's partition goes from one member to the next.
 *
 * What C it stands for:
 *   Member    assignment_refresh, take_partition, assignment_commit, answer of a closing consumer (libshmq/assignment.c)
 *   Coord     group_add_member, group_remove_member, group_assign, group_restore_members (daemon/group_member.c) and
 *             group_hand_over with its two steps, cursor_fence and the store of assign (daemon/group_partition.c)
 * Members die at every step (S), shmqd dies at every step (C) and begins again from what stands in S and G.
 *
 * Checked: a commit only ever succeeds for the generation that is not fenced; nothing is committed that was not processed;
 * in the end, if a member is left, everything is processed and committed (nobody waits for ever).
 * Abstracted: cursor and assign are one 64-bit atomic each; generations do not wrap; memory order (sequentially
 * consistent); event words and wakes (wait.pml); holds (hold.pml); a crash loses only what Coord keeps by itself (mem).
 * Bounds: NMEM members (2, 3), NM records, MAXF hand-overs that nobody's death asked for (a member that lost its
 * connection but lives on, or a purge, which hands a partition to its own owner again), NCR crashes of shmqd.
 * Negative switches: BLIND (check, then store), COMMIT_POLLED, NO_FENCE (assign alone), TRUST_ASSIGN (a
 *   start, and every look, compares the member only). */
#ifndef NMEM
#define NMEM 2
#endif
#ifndef NM
#define NM 2
#endif
#ifndef MAXF
#define MAXF 1
#endif
#ifndef NCR
#define NCR 1
#endif
#define NOB 9
byte cg, co;                       /* G: cursor = generation, offset */
byte am=NOB, ag; bool an;          /* S: assign = member, generation; an: not 0 */
bool ing[NMEM];                    /* G: members[].client */
bool alive[NMEM]=1, out[NMEM];     /* out: left, or lost its connection: no member any more, may not know it */
byte nf, ncr;
bool proc_[NM]; byte fenced; bool anyfence;   /* ghosts: generations <= fenced are over */
#define S(x) atomic { if :: x :: goto die fi }
#define C(x) atomic { if :: x :: ncr<NCR -> ncr++; goto crash fi }

proctype Member(byte m) {
  byte g, pos, last, x, gi;
end_out:
  do
  :: atomic { an && am==m && ag!=g && alive[m] -> g=ag };            /* refresh_partition: assign is mine, and new */
     S( x=cg; last=co );
     if
     :: x!=g -> skip                                                 /* a hand-over is on its way: look again later */
     :: else ->
        /* hold, fence; assign and cursor again */
        S( if :: an && am==m && ag==g && cg==x && co==last -> x=1 :: else -> x=0 fi );
        if :: x==1 -> pos=last :: else -> goto lost fi;
end_own:
        do
        :: pos<NM ->
#ifndef COMMIT_POLLED
           S( proc_[pos]=1; pos++; if :: pos<NM -> proc_[pos]=1; pos++ :: skip fi );   /* a batch of one or two */
#else
           pos++;
#endif
#ifdef BLIND
           S( x=cg );
           if :: x==g -> S( assert(!(anyfence && g<=fenced)); co=pos; cg=g; last=pos ) :: else -> break fi;
#else
           S( if :: cg==g && co==last -> assert(!(anyfence && g<=fenced)); assert(pos>=co);
                   gi=0; do :: gi<pos -> assert(proc_[gi]); gi++ :: else -> break od; gi=0;
                   co=pos; last=pos; x=1 :: else -> x=0 fi );
           if :: x==0 -> break :: else fi;
#endif
#ifdef COMMIT_POLLED
           S( proc_[pos-1]=1 );
#endif
        :: atomic { !out[m] && pos==last && m==0 -> out[m]=1; break }/* closes: all committed, leaves */
        :: atomic { pos==NM && (am!=m || ag!=g) -> break }           /* fenced: the next look tells */
        od
     fi;
lost: atomic { pos=0; last=0; x=0 }
  :: m==0 -> goto die                                                /* dies while it stands by, too */
  od;
die: atomic { alive[m]=0; g=0; pos=0; last=0; x=0; gi=0 };
end_d: false
}

#define GONE(m) (ing[m] && (!alive[m] || out[m]))
#define FIRST (mem[0] -> 0 : (mem[1] -> 1 : LASTM))
#if NMEM==2
#define LASTM NOB
#define SOMEGONE (GONE(0) || GONE(1))
#define LEFT ((alive[0] && !out[0]) || (alive[1] && !out[1]))
#else
#define LASTM (mem[2] -> 2 : NOB)
#define SOMEGONE (GONE(0) || GONE(1) || GONE(2))
#define LEFT ((alive[0] && !out[0]) || (alive[1] && !out[1]) || (alive[2] && !out[2]))
#endif
#define JOINS(m) (!mem[m] && !ing[m] && alive[m] && !out[m])

proctype Coord() {
  byte n, k, x; bool mem[NMEM]; bool purge; byte first=NOB;
  goto start;
idle: atomic { n=0; k=0; x=0; purge=0 };
end_idle:
  atomic {
  if
  :: JOINS(0) -> n=0; goto join
  :: JOINS(1) -> n=1; goto join
#if NMEM==3
  :: JOINS(2) -> n=2; goto join
#endif
  :: mem[0] && GONE(0) -> n=0; goto leave
  :: mem[1] && GONE(1) -> n=1; goto leave
#if NMEM==3
  :: mem[2] && GONE(2) -> n=2; goto leave
#endif
  :: nf<MAXF && an && am<NMEM && mem[am] && !out[am] -> nf++; n=am; out[am]=1; goto leave  /* loses its connection, lives on */
  :: nf<MAXF && an && am<NMEM && mem[am] && !out[am] -> nf++; purge=1; goto assign
  fi };
join:
  C( ing[n]=1; mem[n]=1; goto assign );
leave:
  C( ing[n]=0; mem[n]=0; if :: first==n -> first=NOB :: else fi );
assign:                                                              /* group_assign: who joined first, owns */
#ifdef TRUST_ASSIGN
  atomic { n=(first!=NOB -> first : FIRST); if :: an && am==n && !purge -> goto idle :: else fi };
#else
  C( n=(first!=NOB -> first : FIRST); x=(an && am==n -> ag+1 : 0) );
  C( if :: x==cg+1 && !purge -> goto idle :: else fi );
#endif
  /* group_hand_over: 1 fence */
#ifdef NO_FENCE
  C( x=0; k=cg+1 );
#else
  C( fenced=cg; anyfence=1; cg=cg+1; x=0; k=cg );
#endif
  C( an=1; am=n; ag=k );                                             /* 2 assign */
  goto idle;
crash: atomic { n=0; k=0; x=0; purge=0; first=NOB; mem[0]=0; mem[1]=0;
#if NMEM==3
  mem[2]=0;
#endif
  };
start:                                                               /* group_restore_members */
  do
  :: n<NMEM && ing[n] && alive[n] && !out[n] -> mem[n]=1; n++
  :: n<NMEM && GONE(n) -> C( ing[n]=0 ); n++
  :: n<NMEM && !ing[n] -> n++
  :: else -> break
  od;
  atomic { n=0; if :: an && am<NMEM && mem[am] -> first=am :: else fi;   /* the owner of before stays the owner */
    if :: mem[0] || mem[1] || mem[NMEM-1] -> goto assign :: else -> goto idle fi };
}
proctype Mon() { byte i;
end_m: atomic { timeout -> if :: LEFT -> assert(co==NM); do :: i<NM -> assert(proc_[i]); i++ :: else -> break od :: else fi } }
init { atomic { run Member(0); run Member(1);
#if NMEM==3
  run Member(2);
#endif
  run Coord(); run Mon() } }
